// The module pixcli._costs: cost functions for pyceres. Import pyceres first: it registers
// ceres::CostFunction.
#include <ceres/cost_function.h>
#include <pybind11/pybind11.h>

PYBIND11_MODULE(_costs, m) { m.doc() = "Cost functions of pixcli for pyceres.Problem."; }
