// What compilers spell differently, for kernel sources only.
#pragma once

#if defined(_MSC_VER)
#define PIXCLI_INLINE static __forceinline
#else
#define PIXCLI_INLINE static inline __attribute__((always_inline))
#endif

// Before a loop of up to eight rounds whose arrays shall stay in registers.
#if defined(__clang__)
#define PIXCLI_UNROLL _Pragma("unroll")
#elif defined(__GNUC__)
#define PIXCLI_UNROLL _Pragma("GCC unroll 8")
#else
#define PIXCLI_UNROLL
#endif
