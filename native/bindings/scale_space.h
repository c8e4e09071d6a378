#pragma once

#include <pybind11/pybind11.h>

namespace pixcli {

void BindScaleSpace(pybind11::module_& m);

}  // namespace pixcli
