#include "core/block_system.h"

#include <algorithm>
#include <cmath>

namespace pixcli {
namespace {

// Solves A x = b in place, A (n, n) row-major, its upper triangle given. Rows are eliminated from those
// below, so that the inner loop runs along memory and has no sum to wait for.
bool CholeskySolve(int n, double* a, double* b) {
  for (int i = 0; i < n; ++i) {
    const double* pivot = a + i * n;
    if (!(pivot[i] > 0)) return false;
    const double inverse = 1 / pivot[i];
    for (int r = i + 1; r < n; ++r) {
      const double factor = pivot[r] * inverse;
      double* row = a + r * n;
      for (int c = r; c < n; ++c) row[c] -= factor * pivot[c];
      b[r] -= factor * b[i];
    }
  }
  for (int i = n - 1; i >= 0; --i) {
    for (int c = i + 1; c < n; ++c) b[i] -= a[i * n + c] * b[c];
    b[i] /= a[i * n + i];
  }
  return true;
}

double Dot(const std::vector<Vec2>& a, const std::vector<Vec2>& b) {
  double sum = 0;
  for (size_t k = 0; k < a.size(); ++k) sum += a[k][0] * b[k][0] + a[k][1] * b[k][1];
  return sum;
}

}  // namespace

void BlockSystem::Reset(size_t nodes, size_t edges) {
  diagonal.assign(nodes, Block{});
  coupling.assign(edges, Block{});
  gradient.assign(nodes, Vec2{});
}

void BlockSystem::Multiply(const std::vector<Edge>& edges, const std::vector<Vec2>& x,
                           std::vector<Vec2>* product) const {
  product->resize(x.size());
  for (size_t k = 0; k < x.size(); ++k) {
    const Block& d = diagonal[k];
    (*product)[k] = {d[0] * x[k][0] + d[1] * x[k][1], d[2] * x[k][0] + d[3] * x[k][1]};
  }
  for (size_t e = 0; e < edges.size(); ++e) {
    const Block& c = coupling[e];
    const Vec2 &xi = x[edges[e].i], &xj = x[edges[e].j];
    Vec2 &pi = (*product)[edges[e].i], &pj = (*product)[edges[e].j];
    pi[0] += c[0] * xj[0] + c[1] * xj[1];
    pi[1] += c[2] * xj[0] + c[3] * xj[1];
    pj[0] += c[0] * xi[0] + c[2] * xi[1];
    pj[1] += c[1] * xi[0] + c[3] * xi[1];
  }
}

bool BlockSystem::Solve(const std::vector<Edge>& edges, const std::vector<Vec2>& damping, size_t dense_limit,
                        std::vector<Vec2>* step) const {
  return diagonal.size() <= dense_limit ? SolveDense(edges, damping, step)
                                        : SolveConjugate(edges, damping, step);
}

bool BlockSystem::SolveDense(const std::vector<Edge>& edges, const std::vector<Vec2>& damping,
                             std::vector<Vec2>* step) const {
  const size_t nodes = diagonal.size();
  thread_local std::vector<std::array<int, 2>> column;
  thread_local std::vector<double> matrix, solution;
  column.resize(nodes);
  solution.resize(2 * nodes);
  int n = 0;
  for (size_t k = 0; k < nodes; ++k) {
    for (int c = 0; c < 2; ++c) {
      column[k][c] = damping[k][c] > 0 ? n : -1;
      if (damping[k][c] > 0) solution[n++] = -gradient[k][c];
    }
  }
  matrix.assign(static_cast<size_t>(n) * n, 0);
  const auto add = [&](int row, int col, double value) {
    if (row >= 0 && col >= 0) matrix[std::min(row, col) * n + std::max(row, col)] += value;
  };
  for (size_t k = 0; k < nodes; ++k) {
    add(column[k][0], column[k][0], diagonal[k][0] + damping[k][0]);
    add(column[k][0], column[k][1], diagonal[k][1]);
    add(column[k][1], column[k][1], diagonal[k][3] + damping[k][1]);
  }
  for (size_t e = 0; e < edges.size(); ++e) {
    const auto &ci = column[edges[e].i], &cj = column[edges[e].j];
    for (int r = 0; r < 2; ++r) {
      for (int c = 0; c < 2; ++c) add(ci[r], cj[c], coupling[e][2 * r + c]);
    }
  }
  if (!CholeskySolve(n, matrix.data(), solution.data())) return false;
  step->assign(nodes, Vec2{});
  for (size_t k = 0; k < nodes; ++k) {
    for (int c = 0; c < 2; ++c) {
      if (column[k][c] >= 0) (*step)[k][c] = solution[column[k][c]];
    }
  }
  return true;
}

// Preconditioned by the inverse diagonal blocks. The tolerance is tight: a keypoint that its track hardly
// determines would else stop short of its optimum.
bool BlockSystem::SolveConjugate(const std::vector<Edge>& edges, const std::vector<Vec2>& damping,
                                 std::vector<Vec2>* step) const {
  constexpr int kMaxIterations = 500;
  constexpr double kTolerance = 1e-9;
  const size_t nodes = diagonal.size();
  std::vector<Block> inverse(nodes);
  std::vector<Vec2> residual(nodes), direction(nodes), scaled(nodes), product;
  for (size_t k = 0; k < nodes; ++k) {
    const bool x = damping[k][0] > 0, y = damping[k][1] > 0;
    const double a = diagonal[k][0] + damping[k][0], b = diagonal[k][1], c = diagonal[k][3] + damping[k][1];
    const double determinant = x && y ? a * c - b * b : 1;
    if ((x && !(a > 0)) || (y && !(c > 0)) || !(determinant > 0)) return false;
    inverse[k] = x && y ? Block{c / determinant, -b / determinant, -b / determinant, a / determinant}
                        : Block{x ? 1 / a : 0, 0, 0, y ? 1 / c : 0};
    residual[k] = {x ? -gradient[k][0] : 0, y ? -gradient[k][1] : 0};
  }
  const auto precondition = [&] {
    for (size_t k = 0; k < nodes; ++k) {
      const Vec2& r = residual[k];
      scaled[k] = {inverse[k][0] * r[0] + inverse[k][1] * r[1], inverse[k][2] * r[0] + inverse[k][3] * r[1]};
    }
  };
  step->assign(nodes, Vec2{});
  precondition();
  direction = scaled;
  double energy = Dot(residual, scaled);
  const double enough = kTolerance * kTolerance * energy;
  for (int iteration = 0; iteration < kMaxIterations && energy > enough; ++iteration) {
    Multiply(edges, direction, &product);
    for (size_t k = 0; k < nodes; ++k) {
      for (int c = 0; c < 2; ++c) {
        product[k][c] = damping[k][c] > 0 ? product[k][c] + damping[k][c] * direction[k][c] : 0;
      }
    }
    const double curvature = Dot(direction, product);
    if (!(curvature > 0)) return false;
    const double length = energy / curvature;
    for (size_t k = 0; k < nodes; ++k) {
      for (int c = 0; c < 2; ++c) {
        (*step)[k][c] += length * direction[k][c];
        residual[k][c] -= length * product[k][c];
      }
    }
    precondition();
    const double next = Dot(residual, scaled);
    for (size_t k = 0; k < nodes; ++k) {
      for (int c = 0; c < 2; ++c) direction[k][c] = scaled[k][c] + next / energy * direction[k][c];
    }
    energy = next;
  }
  return true;
}

}  // namespace pixcli
