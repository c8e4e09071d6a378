// References of points and maps of the distance to them, for _core.
#pragma once

#include <pybind11/pybind11.h>

namespace pixcli {

void BindReferences(pybind11::module_& m);

}  // namespace pixcli
