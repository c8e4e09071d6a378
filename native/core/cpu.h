// Which instruction set the kernels use: the best of the machine, or a lesser one that PIXCLI_ISA names.
#pragma once

namespace pixcli {

enum class Isa { kBaseline = 0, kAvx2 = 1, kAvx512 = 2 };

// Decided once, on first use. Throws std::runtime_error if PIXCLI_ISA asks for what the machine lacks.
Isa CurrentIsa();

const char* IsaName(Isa isa);

}  // namespace pixcli
