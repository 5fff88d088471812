// What choosing by value shares: scores as numbers in order, sums over a program, the k-th best of what threads hold.
//
// THREADS is defined.

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

#define WARPS (THREADS / 32)
#define LEAST (-__int_as_float(0x7F800000))
#define GATE_BITS 18

// Numbers in the order of the scores: zeros of either sign are equal, NaN is minus infinity, 0 is none.
__device__ __forceinline__ u32 ordered(float score) {
    const u32 bits = __float_as_uint(score != score ? LEAST : score == 0.f ? 0.f : score);
    return bits >> 31 ? ~bits : bits | 0x80000000;
}

__device__ __forceinline__ float score_of(u32 number) {
    return __uint_as_float(number >> 31 ? number ^ 0x80000000 : ~number);
}

// Sum over the program; ``turn`` alternates between two places for it, so that one barrier is enough.
__device__ __forceinline__ int sum_of(int own, int (&shared)[2][WARPS], int& turn) {
    own = __reduce_add_sync(0xFFFFFFFF, own);
    if (threadIdx.x % 32 == 0) shared[turn][threadIdx.x / 32] = own;
    __syncthreads();
    int sum = 0;
#pragma unroll
    for (int i = 0; i < WARPS; i++) sum += shared[turn][i];
    turn ^= 1;
    return sum;
}

// The greatest number that ``wanted`` of the values reach, to ``bits`` behind those that all share; there are enough.
template <int COUNT>
__device__ __forceinline__ u32 reached(const u32 (&value)[COUNT], int wanted, int bits, int (&shared)[2][WARPS], int& turn) {
    u32 low = 0xFFFFFFFF, high = 0;
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
        low = min(low, value[i] ? value[i] : 0xFFFFFFFF);
        high = max(high, value[i]);
    }
    low = __reduce_min_sync(0xFFFFFFFF, low);
    high = __reduce_max_sync(0xFFFFFFFF, high);
    __shared__ u32 lows[WARPS], highs[WARPS];
    if (threadIdx.x % 32 == 0) {
        lows[threadIdx.x / 32] = low;
        highs[threadIdx.x / 32] = high;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < WARPS; i++) {
        low = min(low, lows[i]);
        high = max(high, highs[i]);
    }
    __syncthreads();
    if (low >= high) return high;
    const int top = 31 - __clz(low ^ high);
    u32 bound = (high >> top >> 1) << top << 1;
    for (int bit = top; bit >= 0 && bit > top - bits; bit--) {
        const u32 trial = bound | (1u << bit);
        int own = 0;
#pragma unroll
        for (int i = 0; i < COUNT; i++) own += value[i] >= trial;
        if (sum_of(own, shared, turn) >= wanted) bound = trial;
    }
    return bound;
}

// The gate of a sample's values for the topk best of the row, one place in each ``step`` of which was looked at.
template <int COUNT>
__device__ __forceinline__ float gate_of(
    const u32 (&value)[COUNT], int there, int topk, int step, int (&shared)[2][WARPS], int& turn) {
    const float share = (float)topk / step;
    const int wanted = (int)(share + 6.f * sqrtf(share) + 2.f);
    if (sum_of(there, shared, turn) < wanted) return LEAST;
    return score_of(reached(value, wanted, GATE_BITS, shared, turn));
}
