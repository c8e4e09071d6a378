#pragma once

#include <pybind11/pybind11.h>

namespace pixcli {

void BindTracks(pybind11::module_& m);

}  // namespace pixcli
