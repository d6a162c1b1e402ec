// What autograd calls, and what calls autograd: one unit, since each of these files takes less time
// to compile than torch's headers take to be read.
#include "../autograd.cpp"
#include "../autograd_filled.cpp"
#include "../autograd_grid.cpp"
#include "../ops_chain.cpp"
#include "../ops_grid.cpp"
#include "../ops_kept.cpp"
