// Selection's last part, a query a program: the places that marks say pass its gate are listed in order, their scores are
// computed again with the same bits, and the best are chosen, ties by place. Nothing but places reaches memory.
//
// A query whose gate missed is left alone, as is one with a score below its gate: then two kernels disagree, and it is
// another's. Groups of four warps take tiles of 64 listed keys in turn. All four lanes that share rows of a product hold
// the same columns, all heads of the query, and the same sums.
//
// Compiled behind hopper.cu and ranking.cu, with THREADS, PROGRAMS (a processor's), STAGES and ROOM defined.

#define GROUPS (THREADS / 128)
#define KEPT (ROOM / THREADS)

struct Listed {
    const u8* keys;  // from this thread's chunk on
    const float* scales;
    const int *line, *places;
    int key_stride, last;
};

__device__ __forceinline__ int2 slots_of(const Listed& listed, int number) {
    int2 slot;
    slot.x = __ldg(listed.line + listed.places[min(number, listed.last)]);
    slot.y = __ldg(listed.line + listed.places[min(number + 1, listed.last)]);
    return slot;
}

__device__ __forceinline__ void fill(const Listed& listed, int2 slot, u32 tile, u32 scale, u32 chunk) {
    copy_16(tile, listed.keys + (long long)slot.x * listed.key_stride);
    copy_16(tile + 512, listed.keys + (long long)slot.y * listed.key_stride);
    if (chunk < 2) copy_4(scale, listed.scales + (chunk ? slot.y : slot.x));
    copies_end();
}

__device__ __forceinline__ void group_waits(int group) {
    asm volatile("bar.sync %0, 128;" ::"r"(group + 1) : "memory");
}

extern "C" __global__ void __launch_bounds__(THREADS, PROGRAMS) finish_rows(
    const u8* __restrict__ q, const float* __restrict__ weights, const u8* __restrict__ keys,
    const float* __restrict__ scales, const int* __restrict__ table, const int* __restrict__ rows,
    const int* __restrict__ positions, const float* __restrict__ gates, const u32* __restrict__ marks,
    int* __restrict__ passed, int* __restrict__ out, int topk, int table_stride, int key_stride, int mark_stride) {
    extern __shared__ __align__(1024) u8 room[];
    u8 *const asked = room, *const tiles = room + TILE_BYTES;
    float* const tile_scales = (float*)(tiles + GROUPS * STAGES * TILE_BYTES);
    int* const places = (int*)(tile_scales + GROUPS * STAGES * KEYS);
    u32* const values = (u32*)(places + ROOM);
    __shared__ int sums[2][WARPS], before[WARPS], before_same[WARPS];

    const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
    const int query = blockIdx.x, length = positions[query] + 1;
    out += (long long)query * topk;
    if (length <= topk) {
        for (int i = thread; i < topk; i += THREADS) out[i] = i < length ? i : -1;
        return;
    }

    for (int i = thread; i < 64 * 4; i += THREADS) {
        const int column = i >> 2, head = column / 8 * 2 + column % 2;
        *(uint4*)(asked + swizzled(column, i & 3)) =
            *(const uint4*)(q + ((long long)query * HEADS + head) * DIM + (i & 3) * 16);
    }
    float weight[HEADS];
#pragma unroll
    for (int i = 0; i < HEADS; i++) weight[i] = 0.5f * weights[(long long)query * HEADS + i];

    // Each warp has an equal part of the words, each lane every 32nd of them.
    const u32* mark = marks + (long long)query * mark_stride;
    const int words = (length + 31) / 32, share = (words + WARPS * 32 - 1) / (WARPS * 32) * 32;
    const int end = min(words, (warp + 1) * share);
    int own = 0;
    for (int i = warp * share + lane; i < end; i += 32) own += __popc(__ldg(mark + i));
    own = __reduce_add_sync(0xFFFFFFFF, own);
    if (lane == 0) before[warp] = own;
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncthreads();
    int at = 0, found = 0;
#pragma unroll
    for (int i = 0; i < WARPS; i++) {
        if (i < warp) at += before[i];
        found += before[i];
    }
    if (found < topk || found > ROOM) {
        if (thread == 0) passed[query] = found < topk ? found : 0x7FFFFFFF;
        return;
    }
    for (int start = warp * share; start < end; start += 32) {
        u32 word = start + lane < end ? __ldg(mark + start + lane) : 0;
        int so_far = __popc(word);
#pragma unroll
        for (int step = 1; step < 32; step *= 2) {
            const int other = __shfl_up_sync(0xFFFFFFFF, so_far, step);
            if (lane >= step) so_far += other;
        }
        int to = at + so_far - __popc(word);
        at += __shfl_sync(0xFFFFFFFF, so_far, 31);
        for (; word; word &= word - 1) places[to++] = (start + lane) * 32 + __ffs(word) - 1;
    }
    __syncthreads();

    const int group = thread / 128;
    const u32 pair = thread % 128 >> 2, chunk = thread & 3, row = (pair >> 3) * 16 + (pair & 7);
    const u32 own_tiles = shared_address(tiles) + group * STAGES * TILE_BYTES;
    const u32 to_tile = own_tiles + swizzled(row, chunk);
    const float* own_scales = tile_scales + group * STAGES * KEYS + 2 * pair;
    const u32 to_scale = shared_address(own_scales + (chunk & 1));
    const u64 columns = described(shared_address(asked)), own_rows = described(own_tiles);
    const Listed listed = {
        keys + chunk * 16, scales, table + (long long)rows[query] * table_stride, places, key_stride, found - 1};
    int number = group * KEYS + 2 * pair;
    const int stride = GROUPS * KEYS, stop = found - group * KEYS;
    int2 slot;
#pragma unroll
    for (int i = 0; i < STAGES - 1; i++) {
        slot = slots_of(listed, number + i * stride);
        fill(listed, slot, to_tile + i * TILE_BYTES, to_scale + i * KEYS * 4, chunk);
    }
    slot = slots_of(listed, number + (STAGES - 1) * stride);
    u32 stage = 0, ahead = STAGES - 1;
    for (int done = 0; done < stop; done += stride, number += stride) {
        copies_wait<STAGES - 2>();
        FENCE;
        group_waits(group);
        float x[32];
        begin_product(x, own_rows + (u64)(stage * (TILE_BYTES >> 4)), columns);
        fill(listed, slot, to_tile + ahead * TILE_BYTES, to_scale + ahead * KEYS * 4, chunk);
        slot = slots_of(listed, number + STAGES * stride);
        const float2 scale = *(const float2*)(own_scales + stage * KEYS);
        products_wait<0>(x);
        float2 sum = make_float2(0.f, 0.f);
#pragma unroll
        for (int i = 0; i < HEADS; i++) {
            const int from = ORDER[i] / 2 * 4 + ORDER[i] % 2;
            sum.x = __fmaf_rn(__fadd_rn(x[from], fabsf(x[from])), weight[ORDER[i]], sum.x);
            sum.y = __fmaf_rn(__fadd_rn(x[from + 2], fabsf(x[from + 2])), weight[ORDER[i]], sum.y);
        }
        if (chunk == 0) {
            values[number] = ordered(__fmul_rn(sum.x, scale.x));
            values[number + 1] = ordered(__fmul_rn(sum.y, scale.y));
        }
        ahead = stage;
        stage = stage + 1 == STAGES ? 0 : stage + 1;
    }
    copies_wait<0>();
    __syncthreads();

    u32 value[KEPT];
    int turn = 0, above = 0, same = 0;
    bool low = false;
    const u32 least = ordered(gates[query]);
    const int from = warp * KEPT * 32 + lane;
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
        value[i] = from + i * 32 < found ? values[from + i * 32] : 0;
        low |= value[i] && value[i] < least;
    }
    low = sum_of(low, sums, turn) > 0;
    if (thread == 0) passed[query] = low ? 0 : found;
    if (low) return;
    const u32 bound = reached(value, topk, 32, sums, turn);
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
        above += value[i] > bound;
        same += value[i] == bound;
    }
    above = __reduce_add_sync(0xFFFFFFFF, above);
    same = __reduce_add_sync(0xFFFFFFFF, same);
    if (lane == 0) {
        before[warp] = above;
        before_same[warp] = same;
    }
    __syncthreads();
    int taken = 0, ties = 0, rest = topk;
#pragma unroll
    for (int i = 0; i < WARPS; i++) {
        rest -= before[i];
        if (i < warp) {
            taken += before[i];
            ties += before_same[i];
        }
    }
    const u32 earlier = (1u << lane) - 1;
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
        const bool better = value[i] > bound, equal = value[i] == bound;
        const u32 betters = __ballot_sync(0xFFFFFFFF, better), equals = __ballot_sync(0xFFFFFFFF, equal);
        const int tie = ties + __popc(equals & earlier);
        if (better || (equal && tie < rest)) {
            out[taken + __popc(betters & earlier) + min(tie, rest)] = places[from + i * 32];
        }
        taken += __popc(betters);
        ties += __popc(equals);
    }
}
