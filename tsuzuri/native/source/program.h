// A program: the operations of one step of a model, in order, run by the pool from a single call.
//
// In: a list of `Operation`s made once (pointers to packed weights, to buffers, to keys and values), and a `Step` for every
// call (tokens, positions, page tables). Out: logits, or hidden states. The structs are mirrored in `library.py`, field by field;
// `tsuzuri_sizes` lets it check that they still agree. Nothing here checks its input: `program.py` does, before the call.
#pragma once
#include <memory>
#include <vector>

#include "kernels.h"
#include "pool.h"

namespace tsuzuri {

enum Kind : int32_t { EMBED = 0, MATMUL = 1, ATTEND = 2, NORM = 3 };
enum Normed : int32_t { NORM_NONE = 0, NORM_RMS = 1, NORM_LAYER = 2 };

struct Operation {
    int32_t kind;
    // the matrix of EMBED and MATMUL: packed blocks (kernels.h)
    int32_t format;
    int64_t rows, columns;  // outputs and inputs of the whole matrix
    const uint8_t* weights;
    // MATMUL: output = shape(input · weightsᵀ + bias), gated or added to what is there
    const float* bias;
    const float* norm_weight;  // of a norm of the input, or of a NORM
    const float* norm_bias;
    const float* input;
    float* output;
    int64_t input_stride, output_stride;  // floats from token to token
    int32_t norm;
    float epsilon;
    int32_t gate;   // blocks come in pairs, gate and up; as many outputs as half the rows
    int32_t shape;
    int32_t add;    // MATMUL and NORM: to what the output holds (the residual)
    int32_t chosen; // only the tokens that `Step.chosen` names; output i is that of the i-th of them
    float factor;   // EMBED and MATMUL: the output is multiplied by it
    float cap;      // cap · tanh(output / cap); 0: none
    // ATTEND: input holds queries, keys, values of a token one after the other
    int32_t heads, kv_heads, head_size, padded, page_size, kv_format;
    int32_t turned, pairing;  // numbers of a head that rotate; 0: none
    const float *cos, *sin;   // [positions][turned / 2]; of EMBED, cos: [positions][columns], added, or null
    const float *query_norm, *key_norm;  // [head_size] or null
    const float* slopes;      // [heads] or null
    void *keys, *values;      // [page][kv_head][page_size/16][head_size][16], [page][kv_head][page_size][padded]
    int64_t window;
    float scale, score_cap;
};

struct Step {
    int32_t count;             // tokens
    int32_t chosen_count;
    const int32_t* ids;        // [count]
    const int32_t* positions;  // [count]
    const int32_t* sequences;  // [count] row of the page table; tokens of one sequence lie together, positions rising by one
    const int32_t* pages;      // [sequences][page_table_stride]
    int64_t pages_stride;
    const int32_t* chosen;     // [chosen_count] indices of tokens
};

class Program {
   public:
    Program(const Kernels* kernels, Pool* pool, const Operation* operations, int32_t count);
    void run(const Step& step);

   private:
    struct Tile {  // neighbouring tokens of one sequence that attend together
        int32_t first, count;
    };
    struct Scratch {
        std::vector<uint8_t> bytes;
        int64_t phase = -1;  // whose column is prepared
        uint8_t* at(int64_t size);
    };
    enum Part : int32_t { PREPARE, MULTIPLY, PLACE, LOOK, WHOLE };
    struct Job {
        const Operation* op;
        Part part;
        int32_t tokens;
    };

    static void work(void* self, int phase, int64_t begin, int64_t end, int worker);
    void plan(const Step& step);
    void embed(const Operation& op, int64_t begin, int64_t end) const;
    void norm(const Operation& op, int64_t begin, int64_t end, int worker);
    void prepare(const Operation& op, int64_t token, uint8_t* column, float* normed) const;
    void multiply(const Job& job, int phase, int64_t begin, int64_t end, int worker);
    void finish(const Operation& op, int64_t block, int64_t first, int count, const float* sums, const float* up) const;
    void place(const Operation& op, int64_t token, int64_t head) const;
    void look(const Operation& op, const Tile& tile, int64_t head, int worker);

    const Kernels* kernels_;
    Pool* pool_;
    std::vector<Operation> operations_;
    std::vector<Scratch> scratch_;  // one a worker
    std::vector<uint8_t> columns_;  // prepared columns of many tokens
    // of the step under way
    const Step* step_ = nullptr;
    std::vector<Job> jobs_;
    std::vector<Phase> phases_;
    std::vector<Tile> tiles_;
    bool alone_ = false;  // every token is of a sequence of its own
    uint64_t steps_ = 0;
};

}  // namespace tsuzuri
