// Symmetric linear systems of 2x2 blocks on the edges of a graph: the normal equations of a track.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace pixcli {

using Vec2 = std::array<double, 2>;

struct Edge {
  int32_t i, j;
  double weight;
};

// Row-major 2x2 blocks. The matrix has `diagonal[k]` at (k, k) and `coupling[e]` at (i, j) of edge e, its
// transpose at (j, i).
struct BlockSystem {
  using Block = std::array<double, 4>;
  std::vector<Block> diagonal, coupling;
  std::vector<Vec2> gradient;

  void Reset(size_t nodes, size_t edges);

  // The matrix times x.
  void Multiply(const std::vector<Edge>& edges, const std::vector<Vec2>& x, std::vector<Vec2>* product) const;

  // Solves (matrix + diag(damping)) step = -gradient over the coordinates where `damping` is positive; the
  // others stay zero. Up to kDenseLimit nodes by Cholesky, above it by conjugate gradients, linear in the
  // edges. Returns false where the matrix is not positive definite.
  bool Solve(const std::vector<Edge>& edges, const std::vector<Vec2>& damping, size_t dense_limit,
             std::vector<Vec2>* step) const;

 private:
  bool SolveDense(const std::vector<Edge>& edges, const std::vector<Vec2>& damping,
                  std::vector<Vec2>* step) const;
  bool SolveConjugate(const std::vector<Edge>& edges, const std::vector<Vec2>& damping,
                      std::vector<Vec2>* step) const;
};

}  // namespace pixcli
