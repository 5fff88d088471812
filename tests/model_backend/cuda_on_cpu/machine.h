// As much of a GPU as the kernels in CUDA C++ use, by one thread of the host for each of theirs, a program at a time.
// Products follow the descriptors of shared memory, swizzled by address; copies are done when they are asked for.
#include <pthread.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

using std::max;
using std::min;

struct Index {
    int x, y, z;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct int2 {
    int x, y;
};
static float2 make_float2(float x, float y) { return {x, y}; }
static float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

#define __global__
#define __device__ static
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __shared__ static

static thread_local Index threadIdx;
static Index blockIdx, gridDim;
static pthread_barrier_t program_waits, warp_waits[32], group_barriers[8], turn_waits;
static unsigned said[32][32];

static void __syncthreads() { pthread_barrier_wait(&program_waits); }
static void group_waits(int group) { pthread_barrier_wait(&group_barriers[group]); }

template <class Function>
static unsigned together(unsigned own, Function function) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    said[warp][lane] = own;
    pthread_barrier_wait(&warp_waits[warp]);
    const unsigned result = function(said[warp], lane);
    pthread_barrier_wait(&warp_waits[warp]);
    return result;
}
static unsigned __ballot_sync(unsigned, bool own) {
    return together(own, [](unsigned* all, int) {
        unsigned bits = 0;
        for (int i = 0; i < 32; i++) bits |= all[i] << i;
        return bits;
    });
}
static int __reduce_add_sync(unsigned, int own) {
    return together(own, [](unsigned* all, int) {
        unsigned sum = 0;
        for (int i = 0; i < 32; i++) sum += all[i];
        return sum;
    });
}
static unsigned __reduce_min_sync(unsigned, unsigned own) {
    return together(own, [](unsigned* all, int) { return *std::min_element(all, all + 32); });
}
static unsigned __reduce_max_sync(unsigned, unsigned own) {
    return together(own, [](unsigned* all, int) { return *std::max_element(all, all + 32); });
}
static int __shfl_up_sync(unsigned, int own, int by) {
    return together(own, [by](unsigned* all, int lane) { return all[lane < by ? lane : lane - by]; });
}
static int __shfl_sync(unsigned, int own, int from) {
    return together(own, [from](unsigned* all, int) { return all[from]; });
}

template <class To, class From>
static To same_bits(From from) {
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
static float __uint_as_float(unsigned bits) { return same_bits<float>(bits); }
static float __int_as_float(int bits) { return same_bits<float>(bits); }
static unsigned __float_as_uint(float value) { return same_bits<unsigned>(value); }
static int __clz(unsigned value) { return value ? __builtin_clz(value) : 32; }
static int __ffs(unsigned value) { return __builtin_ffs(value); }
static int __popc(unsigned value) { return __builtin_popcount(value); }
static float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static float __fadd_rn(float a, float b) { return a + b; }
static float __fmul_rn(float a, float b) { return a * b; }
static int atomicAdd(int* at, int by) { return __atomic_fetch_add(at, by, __ATOMIC_RELAXED); }
static unsigned atomicOr(unsigned* at, unsigned by) { return __atomic_fetch_or(at, by, __ATOMIC_RELAXED); }

static void aligned(const void* pointer, size_t bytes) {
    if ((uintptr_t)pointer % bytes) {
        fprintf(stderr, "an address is no multiple of %zu\n", bytes);
        abort();
    }
}
template <class Type>
static Type __ldg(const Type* from) {
    aligned(from, sizeof(Type));
    return *from;
}
template <class Type>
static Type __ldcs(const Type* from) {
    return __ldg(from);
}
template <class Type>
static void __stcs(Type* to, Type value) {
    aligned(to, sizeof(Type));
    *to = value;
}

// Shared memory is the module's own static memory, within 18 bits of addresses.
static char anchor[16];
static uintptr_t shared_base() { return ((uintptr_t)anchor - 98304) & ~(uintptr_t)1023; }
static unsigned shared_address(const void* pointer) {
    const long address = (uintptr_t)pointer - shared_base();
    if (address < 0 || address > 0x3FFFF) {
        fprintf(stderr, "shared memory lies too far apart\n");
        abort();
    }
    return address;
}
static void* shared_pointer(unsigned address) { return (void*)(shared_base() + address); }

static void copied(unsigned to, const void* from, int bytes) {
    aligned(from, bytes);
    aligned(shared_pointer(to), bytes);
    memcpy(shared_pointer(to), from, bytes);
}
static void copy_16(unsigned to, const void* from) { copied(to, from, 16); }
static void copy_4(unsigned to, const void* from) { copied(to, from, 4); }
static void copies_end() {}
template <int PENDING>
static void copies_wait() {}

static float e4m3(unsigned char code) {
    const int power = code >> 3 & 15, rest = code & 7;
    if ((code & 127) == 127) return NAN;
    const float value = power ? ldexpf(8 + rest, power - 10) : ldexpf(rest, -9);
    return code & 128 ? -value : value;
}
static float read_from(unsigned long long descriptor, int row, int k) {
    const unsigned start = (descriptor & 0x3FFF) << 4, apart = (descriptor >> 32 & 0x3FFF) << 4;
    unsigned address = start + row / 8 * apart + row % 8 * 64 + k;
    if (descriptor >> 62 != 2) abort();
    address ^= (address >> 7 & 3) << 4;
    return e4m3(*(unsigned char*)shared_pointer(address));
}
template <int HELD>
static void begin_product(float (&d)[HELD], unsigned long long keys, unsigned long long queries) {
    const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    for (int i = 0; i < HELD; i++) {
        const int row = warp * 16 + lane / 4 + i % 4 / 2 * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
        double sum = 0;
        for (int k = 0; k < 64; k++) {
            sum += (double)read_from(keys + k / 32 * 2, row, k % 32) * read_from(queries + k / 32 * 2, column, k % 32);
        }
        d[i] = sum;
    }
}
template <int PENDING, int HELD>
static void products_wait(float (&)[HELD]) {}

template <class Function>
static void launch(int columns, int rows, int threads, Function function) {
    gridDim = {columns, rows, 1};
    pthread_barrier_init(&program_waits, nullptr, threads);
    pthread_barrier_init(&turn_waits, nullptr, threads);
    for (int i = 0; i < threads / 32; i++) pthread_barrier_init(&warp_waits[i], nullptr, 32);
    for (auto& one : group_barriers) pthread_barrier_init(&one, nullptr, 128);
    std::vector<std::thread> all;
    for (int i = 0; i < threads; i++) {
        all.emplace_back([=] {
            threadIdx = {i, 0, 0};
            for (int program = 0; program < columns * rows; program++) {
                if (i == 0) blockIdx = {program % columns, program / columns, 0};
                pthread_barrier_wait(&turn_waits);
                function();
                pthread_barrier_wait(&turn_waits);
            }
        });
    }
    for (auto& one : all) one.join();
}
