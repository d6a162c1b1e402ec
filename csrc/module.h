// The Python module stn_cuda._C, to which parts of the build add functions.
#pragma once

#include <torch/csrc/Exceptions.h>
#include <torch/csrc/utils/pybind.h>

#include <utility>

namespace stn_cuda {

// A function of the module, torch's exceptions translated.
template <class F>
void define(pybind11::module_& m, const char* name, F&& f) {
  m.def(name, torch::wrap_pybind_function(std::forward<F>(f)));
}

// Called while the library loads: has `part` called when the module is made.
bool add_to_module(void (*part)(pybind11::module_&));

}  // namespace stn_cuda
