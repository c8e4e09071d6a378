#include "core/tracks.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace pixcli {
namespace {

// The set of (component, image) pairs that are taken, as an open-addressing table of keypoints: the key of a
// keypoint is its component's label and its image. Linear probing with backward-shift deletion keeps it dense
// although members move from component to component.
class ImageSlots {
 public:
  ImageSlots(const std::vector<int32_t>& label, const int32_t* image) : label_(label), image_(image) {
    size_t size = 16;
    while (size < label.size() * 2) size *= 2;
    table_.assign(size, -1);
    mask_ = size - 1;
  }

  bool Contains(int32_t component, int32_t image) const {
    for (size_t i = Hash(component, image);; i = (i + 1) & mask_) {
      const int32_t other = table_[i];
      if (other < 0) return false;
      if (label_[other] == component && image_[other] == image) return true;
    }
  }

  void Insert(int32_t keypoint) {
    size_t i = Home(keypoint);
    while (table_[i] >= 0) i = (i + 1) & mask_;
    table_[i] = keypoint;
  }

  void Erase(int32_t keypoint) {
    size_t hole = Home(keypoint);
    while (table_[hole] != keypoint) hole = (hole + 1) & mask_;
    for (size_t i = (hole + 1) & mask_; table_[i] >= 0; i = (i + 1) & mask_) {
      // An entry may fill the hole only if its probe sequence passes the hole.
      if (((i - Home(table_[i])) & mask_) >= ((i - hole) & mask_)) {
        table_[hole] = table_[i];
        hole = i;
      }
    }
    table_[hole] = -1;
  }

 private:
  size_t Home(int32_t keypoint) const { return Hash(label_[keypoint], image_[keypoint]); }

  size_t Hash(int32_t component, int32_t image) const {
    uint64_t h = (static_cast<uint64_t>(static_cast<uint32_t>(component)) << 32) | static_cast<uint32_t>(image);
    h *= 0x9E3779B97F4A7C15ull;
    return static_cast<size_t>(h ^ (h >> 32)) & mask_;
  }

  const std::vector<int32_t>& label_;
  const int32_t* image_;
  std::vector<int32_t> table_;
  size_t mask_;
};

std::vector<int32_t> StrongestFirst(const float* scores, int64_t num_edges) {
  std::vector<int32_t> order(num_edges);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return scores[a] > scores[b]; });
  return order;
}

}  // namespace

Tracks BuildTracks(const int32_t* edges, int64_t num_edges, const float* scores, const int32_t* image,
                   int32_t num_keypoints) {
  // Components are lists of keypoints; joining appends the smaller list to the larger and relabels it, so that a
  // keypoint is relabelled at most log2(n) times.
  const int32_t n = num_keypoints;
  std::vector<int32_t> label(n), next(n, -1), tail(n), size(n, 1);
  std::iota(label.begin(), label.end(), 0);
  std::iota(tail.begin(), tail.end(), 0);
  ImageSlots slots(label, image);
  for (int32_t i = 0; i < n; ++i) slots.Insert(i);
  const std::vector<int32_t> order = scores ? StrongestFirst(scores, num_edges) : std::vector<int32_t>();
  for (int64_t k = 0; k < num_edges; ++k) {
    const int64_t e = scores ? order[k] : k;
    int32_t a = label[edges[2 * e]], b = label[edges[2 * e + 1]];
    if (a == b) continue;
    if (size[a] < size[b]) std::swap(a, b);
    bool clash = false;
    for (int32_t i = b; i >= 0 && !clash; i = next[i]) clash = slots.Contains(a, image[i]);
    if (clash) continue;
    for (int32_t i = b; i >= 0; i = next[i]) {
      slots.Erase(i);
      label[i] = a;
      slots.Insert(i);
    }
    size[a] += size[b];
    next[tail[a]] = b;
    tail[a] = tail[b];
  }

  std::vector<int32_t> degree(n, 0);
  for (int64_t e = 0; e < num_edges; ++e) {
    const int32_t i = edges[2 * e], j = edges[2 * e + 1];
    if (i != j && label[i] == label[j]) {
      ++degree[i];
      ++degree[j];
    }
  }
  Tracks tracks;
  tracks.label.assign(n, -1);
  tracks.ptr.push_back(0);
  for (int32_t first = 0; first < n; ++first) {
    if (label[first] != first || size[first] < 2) continue;
    const size_t begin = tracks.members.size();
    for (int32_t i = first; i >= 0; i = next[i]) {
      tracks.members.push_back(i);
      tracks.label[i] = static_cast<int32_t>(tracks.ptr.size()) - 1;
    }
    std::sort(tracks.members.begin() + begin, tracks.members.end(), [&](int32_t i, int32_t j) {
      return degree[i] != degree[j] ? degree[i] > degree[j] : i < j;
    });
    tracks.ptr.push_back(static_cast<int64_t>(tracks.members.size()));
  }
  return tracks;
}

}  // namespace pixcli
