// Convolution of maps with many channels.
#pragma once

#include "core/convolution_kernel.h"
#include "core/parallel.h"

namespace pixcli {

// `convolution` with plain weights (rows, columns, inputs, outputs) and bias (outputs), for all of its
// out_height rows. Returns false if the poll stopped it. The result does not depend on the number of threads.
bool Convolve(Convolution convolution, int32_t out_height, int num_threads, const Poll& poll);

}  // namespace pixcli
