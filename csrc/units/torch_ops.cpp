// The ops, what they begin with, and the module: one unit, as torch_autograd.cpp is.
#include "../allocate.cpp"
#include "../arguments.cpp"
#include "../backend.cpp"
#include "../checks.cpp"
#include "../dispatch.cpp"
#include "../module.cpp"
#include "../ops.cpp"
#include "../sampling.cpp"
