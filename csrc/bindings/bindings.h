// What each file of csrc/bindings/ adds to the Python module.
#pragma once

#include <pybind11/pybind11.h>

namespace iberis {

void bind_decode(pybind11::module_& module);
void bind_token_file(pybind11::module_& module);
void bind_order(pybind11::module_& module);  // after bind_token_file, whose IndexReader it takes
void bind_tokenizer(pybind11::module_& module);
void bind_training(pybind11::module_& module);

}  // namespace iberis
