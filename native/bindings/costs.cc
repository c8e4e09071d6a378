// The module pixcli._costs: cost functions for pyceres. Import pyceres first: it registers
// ceres::CostFunction.
#include <memory>
#include <optional>

#include "bindings/arrays.h"
#include "costs/featuremetric_cost.h"
#include "costs/featuremetric_projection_cost.h"
#include "costs/rigid_manifold.h"

namespace py = pybind11;
using namespace py::literals;

namespace pixcli {
namespace {

using Pair = std::array<double, 2>;
using Nodes = std::vector<Pair>;

std::unique_ptr<SampledPatch> MakePatch(const py::array& patch, const Pair& corner, const Pair& scale,
                                        const InterpolationOptions& options, bool portable) {
  if (patch.ndim() != 3) throw py::value_error("expected a patch (height, width, channels)");
  const std::array<int64_t, 3> shape = {patch.shape(0), patch.shape(1), patch.shape(2)};
  return std::make_unique<SampledPatch>(patch.data(), StorageOf(patch), shape, corner, scale, options,
                                        portable ? PortableKernels() : CurrentKernels());
}

std::unique_ptr<FeaturemetricEdgeCost> MakeEdgeCost(const py::array& patch_i, const py::array& patch_j,
                                                    const Pair& corner_i, const Pair& corner_j,
                                                    const Pair& scale_i, const Pair& scale_j,
                                                    const Nodes& nodes, const std::string& mode,
                                                    bool l2_normalize, bool ncc_normalize, bool portable) {
  const InterpolationOptions options = MakeInterpolation(nodes, mode, l2_normalize, ncc_normalize);
  auto i = MakePatch(patch_i, corner_i, scale_i, options, portable),
       j = MakePatch(patch_j, corner_j, scale_j, options, portable);
  if (i->dimension() != j->dimension())
    throw py::value_error("the patches have different numbers of channels");
  return std::make_unique<FeaturemetricEdgeCost>(std::move(i), std::move(j));
}

std::unique_ptr<FeaturemetricReferenceCost> MakeReferenceCost(
    const py::array& patch, const std::vector<double>& reference, const Pair& corner, const Pair& scale,
    const Nodes& nodes, const std::string& mode, bool l2_normalize, bool ncc_normalize, bool portable) {
  const InterpolationOptions options = MakeInterpolation(nodes, mode, l2_normalize, ncc_normalize);
  auto sampled = MakePatch(patch, corner, scale, options, portable);
  if (sampled->dimension() != static_cast<int64_t>(reference.size())) {
    throw py::value_error("the reference needs channels * nodes values");
  }
  return std::make_unique<FeaturemetricReferenceCost>(std::move(sampled), reference);
}

// What keeps an array alive for costs that ceres may destroy on any thread.
std::shared_ptr<const void> Owner(const py::array& array) {
  return std::shared_ptr<const py::array>(new py::array(array), [](const py::array* held) {
    const py::gil_scoped_acquire gil;
    delete held;
  });
}

std::vector<Placement> MakePlacements(int64_t n, const Array<int32_t>& corners, const Array<double>& scales) {
  for (const py::array& array : {py::array(corners), py::array(scales)}) {
    Require(array.ndim() == 2 && array.shape(0) == n && array.shape(1) == 2,
            "corners and scales must have the shape (n, 2)");
  }
  std::vector<Placement> placements(n);
  for (int64_t k = 0; k < n; ++k) {
    placements[k] = {{static_cast<double>(corners.at(k, 0)), static_cast<double>(corners.at(k, 1))},
                     {scales.at(k, 0), scales.at(k, 1)}};
    Require(scales.at(k, 0) > 0 && scales.at(k, 1) > 0, "scales must be positive");
  }
  return placements;
}

std::shared_ptr<ReferencedPatches> MakeReferencedPatches(
    const py::array& patches, const Array<int32_t>& corners, const Array<double>& scales,
    const Array<float>& references, const std::optional<Array<double>>& warps, const Nodes& nodes,
    const std::string& mode, bool l2_normalize, bool ncc_normalize, bool portable, bool mapped) {
  Require(patches.ndim() == 4, "expected patches (n, height, width, channels)");
  const std::array<int64_t, 4> shape = {patches.shape(0), patches.shape(1), patches.shape(2),
                                        patches.shape(3)};
  Require(references.ndim() == 2 && references.shape(1) == shape[3] * static_cast<int64_t>(nodes.size()),
          "expected references (m, channels * nodes)");
  std::vector<double> matrices;
  if (warps) {
    Require(warps->ndim() == 3 && warps->shape(0) == shape[0] && warps->shape(1) == 2 && warps->shape(2) == 2,
            "expected warps (n, 2, 2)");
    matrices.assign(warps->data(), warps->data() + warps->size());
  }
  return std::make_shared<ReferencedPatches>(
      patches.data(), StorageOf(patches), shape, MakePlacements(shape[0], corners, scales),
      std::move(matrices), MakeInterpolation(nodes, mode, l2_normalize, ncc_normalize), references.data(),
      references.shape(0), portable, mapped, Owner(patches));
}

std::shared_ptr<CostMaps> MakeCostMaps(const Array<float>& maps, const Array<int32_t>& corners,
                                       const Array<double>& scales) {
  Require(maps.ndim() == 4 && maps.shape(1) > 1 && maps.shape(2) > 1 && maps.shape(3) == 3,
          "expected maps (n, height, width, 3), of two samples or more in height and width");
  return std::make_shared<CostMaps>(CostMaps{Owner(maps), maps.data(), maps.shape(1), maps.shape(2),
                                             MakePlacements(maps.shape(0), corners, scales)});
}

void RequireIndex(int64_t index, int64_t size, const char* name) {
  if (index < 0 || index >= size) throw py::index_error(std::string(name) + " is out of range");
}

std::unique_ptr<FeaturemetricProjectionCost> MakeProjectionCost(
    std::shared_ptr<ceres::CostFunction> projection, std::shared_ptr<ReferencedPatches> patches,
    int64_t patch, int64_t reference, double wrap_width, bool compressed) {
  RequireIndex(patch, patches->size(), "patch");
  RequireIndex(reference, patches->num_references(), "reference");
  return std::make_unique<FeaturemetricProjectionCost>(std::move(projection), std::move(patches), patch,
                                                       reference, wrap_width, compressed);
}

std::unique_ptr<CostMapProjectionCost> MakeCostMapCost(std::shared_ptr<ceres::CostFunction> projection,
                                                       std::shared_ptr<CostMaps> maps, int64_t map,
                                                       double wrap_width) {
  RequireIndex(map, static_cast<int64_t>(maps->placements.size()), "map");
  return std::make_unique<CostMapProjectionCost>(std::move(projection), std::move(maps), map, wrap_width);
}

std::vector<double> PosePlus(const RigidManifold& manifold, const std::vector<double>& pose,
                             const std::vector<double>& delta) {
  Require(pose.size() == 7 && delta.size() == static_cast<size_t>(manifold.TangentSize()),
          "expected a pose (7,) and a step of the tangent space");
  std::vector<double> moved(7);
  manifold.Plus(pose.data(), delta.data(), moved.data());
  return moved;
}

std::vector<double> PoseMinus(const RigidManifold& manifold, const std::vector<double>& to,
                              const std::vector<double>& from) {
  Require(to.size() == 7 && from.size() == 7, "expected two poses (7,)");
  std::vector<double> delta(manifold.TangentSize());
  manifold.Minus(to.data(), from.data(), delta.data());
  return delta;
}

// (7, t) and (t, 7): derivatives of a step from the pose, and of the step to it, at zero.
std::pair<Array<double>, Array<double>> PoseJacobians(const RigidManifold& manifold,
                                                      const std::vector<double>& pose) {
  Require(pose.size() == 7, "expected a pose (7,)");
  const py::ssize_t size = manifold.TangentSize();
  Array<double> plus({py::ssize_t{7}, size}), minus({size, py::ssize_t{7}});
  manifold.PlusJacobian(pose.data(), plus.mutable_data());
  manifold.MinusJacobian(pose.data(), minus.mutable_data());
  return {plus, minus};
}

}  // namespace
}  // namespace pixcli

// `portable` takes the kernels without vector instructions, whatever the machine has: a second opinion on
// those. `mapped`: patches are a read-only map of a file. The costs borrow the arrays of their patches;
// keep_alive holds these as long as the cost.
PYBIND11_MODULE(_costs, m) {
  using namespace pixcli;
  m.doc() = "Cost functions of pixcli for pyceres.Problem.";
  py::module_::import("pyceres");
  // pyceres holds costs by smart_holder, and so must every class derived from them.
  py::class_<FeaturemetricEdgeCost, ceres::CostFunction, py::smart_holder>(
      m, "FeaturemetricEdgeCost", "f_i(x_i) - f_j(x_j), one row a channel and node; parameters [x_i, x_j].")
      .def(py::init(&MakeEdgeCost), "patch_i"_a.noconvert(), "patch_j"_a.noconvert(), "corner_i"_a,
           "corner_j"_a, "scale_i"_a = Pair{1, 1}, "scale_j"_a = Pair{1, 1}, py::kw_only(),
           "nodes"_a = Nodes{{0, 0}}, "mode"_a = "bicubic", "l2_normalize"_a = true,
           "ncc_normalize"_a = false, "portable"_a = false, py::keep_alive<1, 2>(), py::keep_alive<1, 3>());
  py::class_<FeaturemetricReferenceCost, ceres::CostFunction, py::smart_holder>(
      m, "FeaturemetricReferenceCost", "f(x) - reference, one row a channel and node; parameters [x].")
      .def(py::init(&MakeReferenceCost), "patch"_a.noconvert(), "reference"_a, "corner"_a,
           "scale"_a = Pair{1, 1}, py::kw_only(), "nodes"_a = Nodes{{0, 0}}, "mode"_a = "bicubic",
           "l2_normalize"_a = true, "ncc_normalize"_a = false, "portable"_a = false, py::keep_alive<1, 2>());
  // Shared by the costs of a problem; they keep the arrays that they borrow.
  py::class_<ReferencedPatches, py::smart_holder>(
      m, "ReferencedPatches",
      "Patches (n, P, P, C) of observations and the references (m, D) they are compared with.")
      .def(py::init(&MakeReferencedPatches), "patches"_a.noconvert(), "corners"_a.noconvert(),
           "scales"_a.noconvert(), "references"_a.noconvert(), py::kw_only(),
           "warps"_a.noconvert() = py::none(), "nodes"_a = Nodes{{0, 0}}, "mode"_a = "bicubic",
           "l2_normalize"_a = true, "ncc_normalize"_a = false, "portable"_a = false, "mapped"_a = false);
  py::class_<FeaturemetricProjectionCost, ceres::CostFunction, py::smart_holder>(
      m, "FeaturemetricProjectionCost",
      "f(projection) - reference in three rows, exactly compressed; parameters of the projection.")
      .def(py::init(&MakeProjectionCost), "projection"_a, "patches"_a, "patch"_a, "reference"_a,
           py::kw_only(), "wrap_width"_a = 0.0, "compressed"_a = true);
  py::class_<CostMaps, py::smart_holder>(m, "CostMaps",
                                         "Distance and derivatives (n, P, P, 3) at the samples.")
      .def(py::init(&MakeCostMaps), "maps"_a.noconvert(), "corners"_a.noconvert(), "scales"_a.noconvert());
  py::class_<CostMapProjectionCost, ceres::CostFunction, py::smart_holder>(
      m, "CostMapProjectionCost",
      "The distance to the reference from a map of it; parameters of the projection.")
      .def(py::init(&MakeCostMapCost), "projection"_a, "maps"_a, "map"_a, py::kw_only(),
           "wrap_width"_a = 0.0);
  py::class_<RigidManifold, ceres::Manifold, py::smart_holder>(
      m, "RigidManifold",
      "Of a pose qx qy qz qw tx ty tz, of which one axis of the translation may be constant.")
      .def(py::init<int>(), "constant_axis"_a = -1)
      .def("plus", &PosePlus, "pose"_a, "delta"_a)
      .def("minus", &PoseMinus, "to"_a, "from_"_a)
      .def("jacobians", &PoseJacobians, "pose"_a);
}
