// Tracks: sets of keypoints of different images that matches link together.
#pragma once

#include <cstdint>
#include <vector>

namespace pixcli {

struct Tracks {
  std::vector<int64_t> ptr;      // members of track t are members[ptr[t]:ptr[t+1]]
  std::vector<int32_t> members;  // the root first, then by degree
  std::vector<int32_t> label;    // the track of each keypoint, -1 for none
};

// Joins keypoints along the edges (pairs of keypoint indices), strongest first, and refuses an edge that would put
// two keypoints of one image into one track. Edges of equal score are taken in the order given; without scores all
// are equal. The root is the member with most edges inside its track (the lowest index among equals).
// Linear in the edges but for sorting; about 50 bytes a keypoint and 4 an edge beyond the input.
Tracks BuildTracks(const int32_t* edges, int64_t num_edges, const float* scores, const int32_t* image,
                   int32_t num_keypoints);

}  // namespace pixcli
