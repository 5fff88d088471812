// Exact top-k of long rows of float32 scores in one launch, a row a program, which reads it once.
//
// A sample of the row, one place at random in each of equal steps, sets a gate (see jit/gate.py). What reaches it is kept
// with its place in shared memory, in any order; the k-th best is found bit by bit, ties by place; one bit a place then
// gives the order back. A row where fewer than topk or more than ROOM reach the gate is left alone, and says so.
//
// Compiled behind ranking.cu, with THREADS, PROGRAMS (a processor's), ROOM, SAMPLE (places at most) and STEP defined.

#define KEPT (ROOM / THREADS)
#define SAMPLED (SAMPLE / THREADS)
#define DEPTH 4

extern "C" __global__ void __launch_bounds__(THREADS, PROGRAMS) choose_rows(
    const float* __restrict__ scores, const int* __restrict__ positions, int* __restrict__ passed,
    int* __restrict__ out, int stride, int topk, int words) {
    extern __shared__ u32 room[];
    u32 *const values = room, *const places = room + ROOM, *const marks = room + 2 * ROOM;
    __shared__ int sums[2][WARPS], count, before[WARPS];
    const int thread = threadIdx.x, row = blockIdx.x, length = positions[row] + 1;
    const float* line = scores + (long long)row * stride;
    int turn = 0;
    out += (long long)row * topk;
    if (length <= topk) {
        for (int i = thread; i < topk; i += THREADS) out[i] = i < length ? i : -1;
        return;
    }

    float gate = LEAST;
    if (length > ROOM) {
        u32 value[SAMPLED];
        int there = 0;
#pragma unroll
        for (int i = 0; i < SAMPLED; i++) {
            const int number = thread + i * THREADS;
            const int place = number * STEP + (int)((((u32)number * 2654435761u) >> 16) % STEP);
            value[i] = place < length ? ordered(__ldg(line + place)) : 0;
            there += place < length;
        }
        gate = gate_of(value, there, topk, STEP, sums, turn);
    }
    const bool every = gate == LEAST;
    if (thread == 0) count = 0;
    for (int i = thread; i < words; i += THREADS) marks[i] = 0;
    __syncthreads();

    for (int base = 0; base < length; base += THREADS * 4 * DEPTH) {
        float4 part[DEPTH];
#pragma unroll
        for (int i = 0; i < DEPTH; i++) {
            const int place = base + (i * THREADS + thread) * 4;
            part[i] = make_float4(0.f, 0.f, 0.f, 0.f);
            if (place < length) part[i] = __ldcs((const float4*)(line + place));
        }
        u32 passes = 0;
#pragma unroll
        for (int i = 0; i < DEPTH; i++) {
            passes |= (u32)(part[i].x >= gate || every) << (4 * i);
            passes |= (u32)(part[i].y >= gate || every) << (4 * i + 1);
            passes |= (u32)(part[i].z >= gate || every) << (4 * i + 2);
            passes |= (u32)(part[i].w >= gate || every) << (4 * i + 3);
        }
        if (base + THREADS * 4 * DEPTH > length) {
#pragma unroll
            for (int i = 0; i < 4 * DEPTH; i++) {
                if (base + (i / 4 * THREADS + thread) * 4 + i % 4 >= length) passes &= ~(1u << i);
            }
        }
        if (passes) {
            int at = atomicAdd(&count, __popc(passes));
            if (at + __popc(passes) <= ROOM) {
#pragma unroll
                for (int i = 0; i < DEPTH; i++) {
                    const float four[4] = {part[i].x, part[i].y, part[i].z, part[i].w};
#pragma unroll
                    for (int j = 0; j < 4; j++) {
                        if (passes >> (4 * i + j) & 1) {
                            values[at] = ordered(four[j]);
                            places[at++] = base + (i * THREADS + thread) * 4 + j;
                        }
                    }
                }
            }
        }
    }
    __syncthreads();
    const int found = count;
    if (thread == 0) passed[row] = found;
    if (found < topk || found > ROOM) return;

    u32 value[KEPT];
#pragma unroll
    for (int i = 0; i < KEPT; i++) value[i] = thread + i * THREADS < found ? values[thread + i * THREADS] : 0;
    const u32 bound = reached(value, topk, 32, sums, turn);
    int above = 0, same = 0;
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
        above += value[i] > bound;
        same += value[i] == bound;
    }
    const int rest = topk - sum_of(above, sums, turn);
    u32 last = 0xFFFFFFFF;  // of the places that have the k-th best score, the last that is taken
    if (sum_of(same, sums, turn) > rest) {
        u32 reversed[KEPT];
#pragma unroll
        for (int i = 0; i < KEPT; i++) reversed[i] = value[i] == bound ? ~places[thread + i * THREADS] : 0;
        last = ~reached(reversed, rest, 32, sums, turn);
    }
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
        if (value[i] >= bound && value[i]) {
            const u32 place = places[thread + i * THREADS];
            if (value[i] > bound || place <= last) atomicOr(marks + place / 32, 1u << (place % 32));
        }
    }
    __syncthreads();

    // Each warp has an equal part of the words, each lane every 32nd of them.
    const int share = (words + WARPS * 32 - 1) / (WARPS * 32) * 32, warp = thread / 32, lane = thread % 32;
    int own = 0;
    for (int i = warp * share + lane; i < min(words, (warp + 1) * share); i += 32) own += __popc(marks[i]);
    own = __reduce_add_sync(0xFFFFFFFF, own);
    if (lane == 0) before[warp] = own;
    __syncthreads();
    int at = 0;
    for (int i = 0; i < warp; i++) at += before[i];
    for (int start = warp * share; start < min(words, (warp + 1) * share); start += 32) {
        u32 word = start + lane < words ? marks[start + lane] : 0;
        int so_far = __popc(word);
#pragma unroll
        for (int step = 1; step < 32; step *= 2) {
            const int other = __shfl_up_sync(0xFFFFFFFF, so_far, step);
            if (lane >= step) so_far += other;
        }
        int to = at + so_far - __popc(word);
        at += __shfl_sync(0xFFFFFFFF, so_far, 31);
        for (; word; word &= word - 1) out[to++] = (start + lane) * 32 + __ffs(word) - 1;
    }
}

// Gates of rows whose sampled scores lie by number; minus infinity, which all pass, for rows that fit ``room``.
extern "C" __global__ void __launch_bounds__(THREADS) set_gates(
    const float* __restrict__ sampled, const int* __restrict__ positions, float* __restrict__ gates, int stride,
    int topk, int room) {
    __shared__ int sums[2][WARPS];
    const int thread = threadIdx.x, row = blockIdx.x, length = positions[row] + 1;
    int turn = 0, there = 0;
    float gate = LEAST;
    if (length > room) {
        u32 value[SAMPLED];
#pragma unroll
        for (int i = 0; i < SAMPLED; i++) {
            const int number = thread + i * THREADS;
            const int place = number * STEP + (int)((((u32)number * 2654435761u) >> 16) % STEP);
            value[i] = place < length ? ordered(sampled[(long long)row * stride + number]) : 0;
            there += place < length;
        }
        gate = gate_of(value, there, topk, STEP, sums, turn);
    }
    if (thread == 0) gates[row] = gate;
}
