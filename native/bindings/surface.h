#pragma once

#include <pybind11/pybind11.h>

namespace pixcli {

void BindSurface(pybind11::module_& m);

}  // namespace pixcli
