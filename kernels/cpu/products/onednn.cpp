#include "kernels/cpu/products/onednn.hpp"

#include <fmt/core.h>
#include <omp.h>

#include <map>
#include <oneapi/dnnl/dnnl.hpp>
#include <tuple>
#include <unordered_map>

#include "kernels/threads.hpp"
#include "tensor/error.hpp"

namespace switchyard::kernels::cpu {

namespace {

using dnnl::memory;

// oneDNN reads the number of threads when it makes and when it runs a primitive.
class OneThread {
 public:
  OneThread() : outer_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(outer_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int outer_;
};

memory::data_type type_of(DType dtype) {
  expect(dtype == DType::f32 || dtype == DType::bf16, "products of f32 or bf16");
  return dtype == DType::f32 ? memory::data_type::f32 : memory::data_type::bf16;
}

memory::desc matrix(std::int64_t rows, std::int64_t cols, DType dtype, std::int64_t leading,
                    bool transposed) {
  const memory::dims strides = transposed ? memory::dims{1, leading} : memory::dims{leading, 1};
  return {{rows, cols}, type_of(dtype), strides};
}

struct ProductHash {
  std::size_t operator()(const Product& p) const {
    std::size_t hash = 0;
    for (const std::int64_t value :
         {p.m, p.n, p.k, p.lda, p.ldb, p.ldc,
          static_cast<std::int64_t>(p.operands) << 8 | static_cast<std::int64_t>(p.result),
          static_cast<std::int64_t>(p.a_transposed) << 3 |
              static_cast<std::int64_t>(p.b_transposed) << 2 |
              static_cast<std::int64_t>(p.b_packed) << 1 | static_cast<std::int64_t>(p.accumulate)})
      hash = (hash ^ static_cast<std::size_t>(value)) * 0x9e3779b97f4a7c15u;
    return hash ^ (hash >> 32);
  }
};

// A primitive and the memory objects whose addresses each call sets.
struct Prepared {
  dnnl::matmul primitive;
  std::unordered_map<int, memory> arguments;
};

// What a thread keeps between calls.
struct ThreadState {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  std::unordered_map<Product, Prepared, ProductHash> products;
  std::map<std::tuple<std::int64_t, std::int64_t, DType>, memory::desc> packed_descs;
};

ThreadState& thread_state() {
  thread_local ThreadState state;
  return state;
}

// A multiple of it that holds n.
std::int64_t round_up(std::int64_t n, std::int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// One layout serves every number of rows: it is what oneDNN chooses for that many.
constexpr std::int64_t layout_rows = 256;
const memory::desc& packed_desc(std::int64_t k, std::int64_t n, DType dtype) {
  ThreadState& state = thread_state();
  const auto key = std::tuple{k, n, dtype};
  const auto found = state.packed_descs.find(key);
  if (found != state.packed_descs.end()) return found->second;
  const auto type = type_of(dtype);
  const dnnl::matmul::primitive_desc chosen({{{layout_rows, k}, type, memory::format_tag::ab},
                                             {{k, n}, type, memory::format_tag::any},
                                             {{layout_rows, n}, type, memory::format_tag::ab}},
                                            state.engine);
  const memory::desc preferred = chosen.weights_desc();
  const bool fits = static_cast<std::int64_t>(preferred.get_size()) <= packed_bytes(k, n, dtype);
  return state.packed_descs.emplace(key, fits ? preferred : matrix(k, n, dtype, n, false))
      .first->second;
}

Prepared prepare(const dnnl::engine& engine, const Product& p) {
  const memory::desc a = matrix(p.m, p.k, p.operands, p.lda, p.a_transposed);
  const memory::desc b = p.b_packed ? packed_desc(p.k, p.n, p.operands)
                                    : matrix(p.k, p.n, p.operands, p.ldb, p.b_transposed);
  const memory::desc c = matrix(p.m, p.n, p.result, p.ldc, false);
  dnnl::primitive_attr attributes;
  if (p.accumulate) {
    dnnl::post_ops sum;
    sum.append_sum(1.0f);
    attributes.set_post_ops(sum);
  }
  const dnnl::matmul::desc operation(a, b, c);
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  dnnl::matmul::primitive_desc description(operation, attributes, engine);
  const auto scratchpad = static_cast<std::int64_t>(description.scratchpad_desc().get_size());
  if (scratchpad > scratchpad_bytes) {
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::library);
    description = {operation, attributes, engine};
  }
  Prepared prepared{dnnl::matmul(description), {}};
  prepared.arguments.emplace(DNNL_ARG_SRC, memory(a, engine, nullptr));
  prepared.arguments.emplace(DNNL_ARG_WEIGHTS, memory(b, engine, nullptr));
  prepared.arguments.emplace(DNNL_ARG_DST, memory(c, engine, nullptr));
  if (scratchpad > 0 && scratchpad <= scratchpad_bytes)
    prepared.arguments.emplace(DNNL_ARG_SCRATCHPAD,
                               memory(description.scratchpad_desc(), engine, nullptr));
  return prepared;
}

// oneDNN takes addresses without const, and writes only its destination.
void* address(const std::byte* data) {
  return const_cast<std::byte*>(data);
}

[[noreturn]] void fail(const Product& p, const dnnl::error& error) {
  throw InternalError(fmt::format("oneDNN: product of [{}, {}] and [{}, {}], {}: {}", p.m, p.k, p.k,
                                  p.n, name_of(p.operands), error.what()));
}

// Columns of a packed [k, n], from a multiple of block_cols on.
struct PackedCols {
  std::int64_t k;
  std::int64_t n;
  std::int64_t begin;
  std::int64_t count;
};
constexpr std::int64_t block_cols = 64;  // oneDNN's blocks are as wide, or a part of it
constexpr std::int64_t elements_of_pack = 65536;

void pack_cols(const PackedCols& cols, DType operands, const float* source, bool transposed,
               std::byte* packed) {
  const OneThread one_thread;
  ThreadState& state = thread_state();
  try {
    const memory::desc from_desc =
        matrix(cols.k, cols.count, DType::f32, transposed ? cols.k : cols.n, transposed);
    memory::desc to_desc =
        packed_desc(cols.k, cols.n, operands).submemory_desc({cols.k, cols.count}, {0, cols.begin});
    // With the place in the address alone, all pieces of a weight share a primitive.
    const std::int64_t place = to_desc.data.offset0;
    to_desc.data.offset0 = 0;
    memory from(from_desc, state.engine,
                const_cast<float*>(source + cols.begin * (transposed ? cols.k : 1)));
    memory to(to_desc, state.engine, packed + place * size_of(operands));
    dnnl::reorder(from, to).execute(state.stream, from, to);
  } catch (const dnnl::error& error) {
    throw InternalError(fmt::format("oneDNN: packing [{}, {}], {}: {}", cols.k, cols.n,
                                    name_of(operands), error.what()));
  }
}

}  // namespace

void multiply(const Product& product, const std::byte* a, const std::byte* b, std::byte* c,
              std::byte* scratchpad) {
  const OneThread one_thread;
  ThreadState& state = thread_state();
  try {
    auto found = state.products.find(product);
    if (found == state.products.end())
      found = state.products.emplace(product, prepare(state.engine, product)).first;
    Prepared& prepared = found->second;
    prepared.arguments.at(DNNL_ARG_SRC).set_data_handle(address(a), state.stream);
    prepared.arguments.at(DNNL_ARG_WEIGHTS).set_data_handle(address(b), state.stream);
    prepared.arguments.at(DNNL_ARG_DST).set_data_handle(c, state.stream);
    const auto in = prepared.arguments.find(DNNL_ARG_SCRATCHPAD);
    if (in != prepared.arguments.end()) in->second.set_data_handle(scratchpad, state.stream);
    prepared.primitive.execute(state.stream, prepared.arguments);
  } catch (const dnnl::error& error) {
    fail(product, error);
  }
}

std::int64_t packed_bytes(std::int64_t k, std::int64_t n, DType operands) {
  constexpr std::int64_t columns = 64, bytes_of_column = 64;
  return round_up(k * size_of(operands), bytes_of_column) * round_up(n, columns);
}

void pack(std::int64_t k, std::int64_t n, DType operands, const float* source, bool transposed,
          std::byte* packed) {
  const std::int64_t piece =
      std::max<std::int64_t>(1, elements_of_pack / (k * block_cols)) * block_cols;
  for_each_piece((n + piece - 1) / piece, [&](std::int64_t i, int) {
    const std::int64_t begin = i * piece;
    pack_cols({k, n, begin, std::min(n - begin, piece)}, operands, source, transposed, packed);
  });
}

}  // namespace switchyard::kernels::cpu
