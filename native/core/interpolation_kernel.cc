#include "core/interpolation_kernel.h"

#include <math.h>

#include "core/lanes.h"

namespace pixcli::PIXCLI_ISA {
namespace {

// The samples that a coordinate touches along one axis, with the weights of value and derivative.
template <class R, int kTaps>
struct Axis {
  int64_t index[kTaps];
  R value[kTaps], slope[kTaps];
};

// Left and right of the patch the value is that of its edge and the derivative is zero. Samples beyond the
// edge repeat it.
template <class R, int kTaps>
Axis<R, kTaps> MakeAxis(double t, int64_t size) {
  const double last = static_cast<double>(size - 1);
  const bool inside = t >= 0 && t <= last;
  const double clamped = inside ? t : (t > last ? last : 0.0);
  int64_t first = static_cast<int64_t>(clamped);
  if (first > size - 2 && size > 1) first = size - 2;
  const double s = clamped - static_cast<double>(first);
  const double d = inside ? 1.0 : 0.0;
  Axis<R, kTaps> axis;
  for (int k = 0; k < kTaps; ++k) {
    const int64_t i = first + k - (kTaps / 2 - 1);
    axis.index[k] = i < 0 ? 0 : (i > size - 1 ? size - 1 : i);
  }
  if constexpr (kTaps == 2) {
    axis.value[0] = static_cast<R>(1 - s), axis.value[1] = static_cast<R>(s);
    axis.slope[0] = static_cast<R>(-d), axis.slope[1] = static_cast<R>(d);
  } else {
    axis.value[0] = static_cast<R>(.5 * s * (-1 + s * (2 - s)));
    axis.value[1] = static_cast<R>(.5 * (2 + s * s * (-5 + 3 * s)));
    axis.value[2] = static_cast<R>(.5 * s * (1 + s * (4 - 3 * s)));
    axis.value[3] = static_cast<R>(.5 * s * s * (s - 1));
    axis.slope[0] = static_cast<R>(.5 * d * (-1 + s * (4 - 3 * s)));
    axis.slope[1] = static_cast<R>(.5 * d * s * (-10 + 9 * s));
    axis.slope[2] = static_cast<R>(.5 * d * (1 + s * (8 - 9 * s)));
    axis.slope[3] = static_cast<R>(.5 * d * s * (-2 + 3 * s));
  }
  return axis;
}

// One register of channels: along x first (value and slope of each row), then along y.
template <class R, int kTaps, class T>
PIXCLI_INLINE void SampleLanes(const T* const (&rows)[kTaps], const int64_t (&columns)[kTaps],
                               const Axis<R, kTaps>& x, const Axis<R, kTaps>& y, int64_t channel, R* f, R* fu,
                               R* fv) {
  Lanes<R> value{}, slope_x{}, slope_y{};
  for (int r = 0; r < kTaps; ++r) {
    Lanes<R> row{}, row_slope{};
    for (int c = 0; c < kTaps; ++c) {
      const Lanes<R> sample = Load<R>(rows[r] + columns[c] + channel);
      row += x.value[c] * sample;
      row_slope += x.slope[c] * sample;
    }
    value += y.value[r] * row;
    slope_x += y.value[r] * row_slope;
    slope_y += y.slope[r] * row;
  }
  Store(f + channel, value);
  Store(fu + channel, slope_x);
  Store(fv + channel, slope_y);
}

template <class R, int kTaps, class T>
void SampleNode(const Sampling& sampling, const T* patch, double u, double v, R* f, R* fu, R* fv) {
  constexpr int kLanes = kLanesOf<R>;
  const int64_t channels = sampling.channels;
  const Axis<R, kTaps> x = MakeAxis<R, kTaps>(u, sampling.width), y = MakeAxis<R, kTaps>(v, sampling.height);
  const T* rows[kTaps];
  int64_t columns[kTaps];
  for (int k = 0; k < kTaps; ++k) {
    rows[k] = patch + y.index[k] * sampling.width * channels;
    columns[k] = x.index[k] * channels;
  }
  int64_t channel = 0;
  for (; channel + kLanes <= channels; channel += kLanes) {
    SampleLanes<R, kTaps, T>(rows, columns, x, y, channel, f, fu, fv);
  }
  if (channel == channels) return;
  // The last channels are copied first: a full register could end beyond the array.
  T tail[kTaps * kTaps * kLanes] = {};
  const T* tail_rows[kTaps];
  int64_t tail_columns[kTaps];
  for (int r = 0; r < kTaps; ++r) {
    tail_rows[r] = tail + r * kTaps * kLanes;
    tail_columns[r] = r * kLanes;
    for (int c = 0; c < kTaps; ++c) {
      for (int64_t k = channel; k < channels; ++k) {
        tail[(r * kTaps + c) * kLanes + k - channel] = rows[r][columns[c] + k];
      }
    }
  }
  SampleLanes<R, kTaps, T>(tail_rows, tail_columns, x, y, 0, f + channel, fu + channel, fv + channel);
}

PIXCLI_INLINE void SumThree(Lanes<float> a, Lanes<float> b, Lanes<float> c, float* sums) {
  Store(sums, SumFour(a, b, c, c));
}
PIXCLI_INLINE void SumThree(Lanes<double> a, Lanes<double> b, Lanes<double> c, double* sums) {
  sums[0] = Sum(a), sums[1] = Sum(b), sums[2] = Sum(c);
}

// f / ‖f‖ with the chain rule; all zero where f is.
template <class R>
void NormalizeL2(int64_t channels, R* f, R* fu, R* fv) {
  constexpr int kLanes = kLanesOf<R>;
  Lanes<R> ff{}, f_fu{}, f_fv{};
  for (int64_t c = 0; c < channels; c += kLanes) {
    const Lanes<R> value = Load<R>(f + c);
    ff += value * value;
    f_fu += value * Load<R>(fu + c);
    f_fv += value * Load<R>(fv + c);
  }
  R sums[4];
  SumThree(ff, f_fu, f_fv, sums);
  const R square = sums[0];
  const R inverse = square == 0 ? R(0) : static_cast<R>(1 / sqrt(static_cast<double>(square)));
  const R along_u = sums[1] * inverse * inverse, along_v = sums[2] * inverse * inverse;
  for (int64_t c = 0; c < channels; c += kLanes) {
    const Lanes<R> value = Load<R>(f + c);
    Store(fu + c, (Load<R>(fu + c) - along_u * value) * inverse);
    Store(fv + c, (Load<R>(fv + c) - along_v * value) * inverse);
    Store(f + c, value * inverse);
  }
}

PIXCLI_INLINE float InverseRoot(float v) { return v > 0 ? 1 / sqrtf(v) : 0; }
PIXCLI_INLINE double InverseRoot(double v) { return v > 0 ? 1 / sqrt(v) : 0; }
template <class V>
PIXCLI_INLINE V InverseRoot(V v) {
  for (unsigned i = 0; i < sizeof(V) / sizeof(v[0]); ++i) v[i] = InverseRoot(v[i]);
  return v;
}

// Over the nodes of one channel (or a register of channels, V): minus the mean, over the deviation. A channel
// without variation becomes zero.
template <class R, class V>
PIXCLI_INLINE void NormalizeNodes(int64_t nodes, int64_t stride, R* f, R* fu, R* fv) {
  const R count = static_cast<R>(nodes);
  V mean{}, mean_u{}, mean_v{};
  for (int64_t k = 0; k < nodes; ++k) {
    mean += LoadAs<V>(f + k * stride);
    mean_u += LoadAs<V>(fu + k * stride);
    mean_v += LoadAs<V>(fv + k * stride);
  }
  mean /= count, mean_u /= count, mean_v /= count;
  V variance{}, along_u{}, along_v{};
  for (int64_t k = 0; k < nodes; ++k) {
    const V centred = LoadAs<V>(f + k * stride) - mean;
    variance += centred * centred;
    along_u += centred * (LoadAs<V>(fu + k * stride) - mean_u);
    along_v += centred * (LoadAs<V>(fv + k * stride) - mean_v);
  }
  variance /= count;
  const R rounding = sizeof(R) == sizeof(float) ? R(1e-11) : R(1e-26);
  const V varies = mean * mean * rounding;
  V inverse = InverseRoot(variance);
  inverse = Select(variance > varies, inverse, V{});
  along_u *= inverse * inverse / count, along_v *= inverse * inverse / count;
  for (int64_t k = 0; k < nodes; ++k) {
    const V centred = LoadAs<V>(f + k * stride) - mean;
    Store(fu + k * stride, (LoadAs<V>(fu + k * stride) - mean_u - along_u * centred) * inverse);
    Store(fv + k * stride, (LoadAs<V>(fv + k * stride) - mean_v - along_v * centred) * inverse);
    Store(f + k * stride, centred * inverse);
  }
}

// A node's last register spills zeros over the place of the next node, which is written after it.
template <class R, int kTaps, class T>
void SampleNodes(const Sampling& sampling, const T* patch, double u, double v, R* rows) {
  const int64_t channels = sampling.channels, nodes = sampling.num_nodes;
  const int64_t stride = RowStride(channels * nodes);
  R *f = rows, *fu = rows + stride, *fv = rows + 2 * stride;
  for (int64_t i = 0; i < 3; ++i) {
    for (int64_t k = PaddedDimension(channels * nodes) - kRowAlignment; k < stride; ++k)
      rows[i * stride + k] = 0;
  }
  for (int64_t k = 0; k < nodes; ++k) {
    const int64_t at = k * channels;
    SampleNode<R, kTaps>(sampling, patch, u + sampling.nodes[2 * k], v + sampling.nodes[2 * k + 1], f + at,
                         fu + at, fv + at);
    if (sampling.l2_normalize) NormalizeL2(channels, f + at, fu + at, fv + at);
  }
  if (!sampling.ncc_normalize) return;
  int64_t c = 0;
  for (; c + kLanesOf<R> <= channels; c += kLanesOf<R>) {
    NormalizeNodes<R, Lanes<R>>(nodes, channels, f + c, fu + c, fv + c);
  }
  for (; c < channels; ++c) NormalizeNodes<R, R>(nodes, channels, f + c, fu + c, fv + c);
}

template <class R, class T>
void SampleStored(const Sampling& sampling, const void* patch, double u, double v, R* rows) {
  const T* typed = static_cast<const T*>(patch);
  if (sampling.bilinear) {
    SampleNodes<R, 2>(sampling, typed, u, v, rows);
  } else {
    SampleNodes<R, 4>(sampling, typed, u, v, rows);
  }
}

template <class R>
void Sample(const Sampling& sampling, const void* patch, double u, double v, R* rows) {
  switch (sampling.storage) {
    case Storage::kHalf: return SampleStored<R, uint16_t>(sampling, patch, u, v, rows);
    case Storage::kFloat: return SampleStored<R, float>(sampling, patch, u, v, rows);
    case Storage::kDouble: return SampleStored<R, double>(sampling, patch, u, v, rows);
  }
}

}  // namespace

extern const InterpolationKernel kInterpolationKernel;
const InterpolationKernel kInterpolationKernel = {Sample<float>, Sample<double>};

}  // namespace pixcli::PIXCLI_ISA
