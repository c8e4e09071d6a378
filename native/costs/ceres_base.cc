// The members of Ceres' base classes that are not inline. Defined here, Ceres' headers suffice: neither its
// library nor the glog that it needs enters the process beside those inside the wheels of pyceres and
// pycolmap, and it does not matter whether a system has the library static, shared or not at all.
#include <ceres/cost_function.h>
#include <ceres/manifold.h>

namespace ceres {

CostFunction::CostFunction() : num_residuals_(0) {}

CostFunction::~CostFunction() = default;

Manifold::~Manifold() = default;

bool Manifold::RightMultiplyByPlusJacobian(const double* x, const int num_rows, const double* ambient_matrix,
                                           double* tangent_matrix) const {
  const int n = AmbientSize(), m = TangentSize();
  std::vector<double> jacobian(static_cast<size_t>(n) * m);
  if (!PlusJacobian(x, jacobian.data())) return false;
  for (int r = 0; r < num_rows; ++r) {
    for (int c = 0; c < m; ++c) {
      double sum = 0;
      for (int k = 0; k < n; ++k) sum += ambient_matrix[r * n + k] * jacobian[k * m + c];
      tangent_matrix[r * m + c] = sum;
    }
  }
  return true;
}

}  // namespace ceres
