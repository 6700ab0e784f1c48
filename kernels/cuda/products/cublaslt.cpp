#include "kernels/cuda/products/cublaslt.hpp"

#include <dlfcn.h>
#include <fmt/core.h>

#include <algorithm>
#include <string>

#include "kernels/cuda/products/linear_sizes.hpp"
#include "tensor/error.hpp"

namespace switchyard::kernels::cuda {

struct CublasLt::Library {
  Library() {
    const std::string name = fmt::format("libcublasLt.so.{}", CUBLAS_VER_MAJOR);
    library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr)  // where the toolkit was when this program was built
      library = dlopen((SWITCHYARD_CUDA_LIBRARY_DIR "/" + name).c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr)
      throw ConfigError(
          fmt::format("run.device: cuda needs {}, which was found neither by the loader nor in {} "
                      "({}); install "
                      "CUDA's cuBLAS, name its folder in LD_LIBRARY_PATH, or write run.device: cpu",
                      name, SWITCHYARD_CUDA_LIBRARY_DIR, dlerror()));
    find("cublasLtCreate", create);
    find("cublasLtDestroy", destroy);
    find("cublasLtMatmulDescCreate", create_operation);
    find("cublasLtMatmulDescDestroy", destroy_operation);
    find("cublasLtMatmulDescSetAttribute", set_operation);
    find("cublasLtMatrixLayoutCreate", create_layout);
    find("cublasLtMatrixLayoutDestroy", destroy_layout);
    find("cublasLtMatmulPreferenceCreate", create_preference);
    find("cublasLtMatmulPreferenceDestroy", destroy_preference);
    find("cublasLtMatmulPreferenceSetAttribute", set_preference);
    find("cublasLtMatmulAlgoGetHeuristic", choose_algorithm);
    find("cublasLtMatmul", multiply);
  }

  template <class Function>
  void find(const char* name, Function& function) const {
    function = reinterpret_cast<Function>(dlsym(library, name));
    expect(function != nullptr, fmt::format("cuBLASLt has {}", name));
  }

  void* library = nullptr;  // stays loaded: the card's driver keeps its kernels
  decltype(&cublasLtCreate) create = nullptr;
  decltype(&cublasLtDestroy) destroy = nullptr;
  decltype(&cublasLtMatmulDescCreate) create_operation = nullptr;
  decltype(&cublasLtMatmulDescDestroy) destroy_operation = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) set_operation = nullptr;
  decltype(&cublasLtMatrixLayoutCreate) create_layout = nullptr;
  decltype(&cublasLtMatrixLayoutDestroy) destroy_layout = nullptr;
  decltype(&cublasLtMatmulPreferenceCreate) create_preference = nullptr;
  decltype(&cublasLtMatmulPreferenceDestroy) destroy_preference = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) set_preference = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) choose_algorithm = nullptr;
  decltype(&cublasLtMatmul) multiply = nullptr;
};

namespace {

void check_status(cublasStatus_t status, const char* what) {
  expect(status == CUBLAS_STATUS_SUCCESS,
         fmt::format("cuBLASLt: {} gave error {}", what, static_cast<int>(status)));
}

cudaDataType_t type_of(DType dtype) {
  return dtype == DType::f32 ? CUDA_R_32F : CUDA_R_16BF;
}

// The largest power of two that divides an address, as far as libraries ask.
std::int64_t alignment_of(const std::byte* address) {
  const auto bits = reinterpret_cast<std::uintptr_t>(address) | 256;
  return static_cast<std::int64_t>(bits & (~bits + 1));
}

// Shapes that vary without end (lengths of prompts) must not fill the memory.
constexpr std::size_t most_shapes = 4096;

}  // namespace

// What the library was told and what it chose.
struct CublasLt::Algorithm {
  explicit Algorithm(const Library& of) : library(of) {}
  ~Algorithm() {
    for (const cublasLtMatrixLayout_t layout : {a, b, d})
      if (layout != nullptr) library.destroy_layout(layout);
    if (operation != nullptr) library.destroy_operation(operation);
  }
  Algorithm(const Algorithm&) = delete;
  Algorithm& operator=(const Algorithm&) = delete;

  const Library& library;
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t a = nullptr;
  cublasLtMatrixLayout_t b = nullptr;
  cublasLtMatrixLayout_t d = nullptr;
  cublasLtMatmulAlgo_t chosen{};
  bool is_possible = false;
};

CublasLt::CublasLt() : library_(std::make_unique<const Library>()) {
  check_status(library_->create(&handle_), "cublasLtCreate");
}

CublasLt::~CublasLt() {
  algorithms_.clear();
  library_->destroy(handle_);
}

CublasLt::Shape CublasLt::shape_of(const DenseProduct& p) {
  return {p.m,
          p.n,
          p.k,
          {p.a.stride, p.b.stride, p.d.stride},
          {alignment_of(p.a.data), alignment_of(p.b.data), alignment_of(p.d.data)},
          {p.a.is_transposed, p.b.is_transposed},
          p.compute,
          p.result,
          p.accumulates};
}

std::unique_ptr<CublasLt::Algorithm> CublasLt::choose(const Shape& shape) const {
  const Library& lt = *library_;
  auto made = std::make_unique<Algorithm>(lt);
  // Sums and factors in fp32 proper; no tf32.
  check_status(lt.create_operation(&made->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F),
               "cublasLtMatmulDescCreate");
  const auto set = [&](cublasLtMatmulDescAttributes_t attribute, bool is_transposed) {
    const cublasOperation_t operation = is_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    check_status(lt.set_operation(made->operation, attribute, &operation, sizeof operation),
                 "cublasLtMatmulDescSetAttribute");
  };
  set(CUBLASLT_MATMUL_DESC_TRANSA, shape.is_transposed[0]);
  set(CUBLASLT_MATMUL_DESC_TRANSB, shape.is_transposed[1]);
  const auto lay_out = [&](cublasLtMatrixLayout_t& layout, DType dtype, std::int64_t rows,
                           std::int64_t cols, std::int64_t stride, bool is_transposed) {
    if (is_transposed) std::swap(rows, cols);
    check_status(lt.create_layout(&layout, type_of(dtype), static_cast<std::uint64_t>(rows),
                                  static_cast<std::uint64_t>(cols), stride),
                 "cublasLtMatrixLayoutCreate");
  };
  lay_out(made->a, shape.compute, shape.m, shape.k, shape.strides[0], shape.is_transposed[0]);
  lay_out(made->b, shape.compute, shape.k, shape.n, shape.strides[1], shape.is_transposed[1]);
  lay_out(made->d, shape.result, shape.m, shape.n, shape.strides[2], false);

  cublasLtMatmulPreference_t preference = nullptr;
  check_status(lt.create_preference(&preference), "cublasLtMatmulPreferenceCreate");
  const auto prefer = [&]<class Value>(cublasLtMatmulPreferenceAttributes_t attribute,
                                       Value value) {
    return lt.set_preference(preference, attribute, &value, sizeof value);
  };
  const auto alignment = [&](int matrix) {
    return static_cast<std::uint32_t>(shape.alignments[matrix]);
  };
  cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
  for (const cublasStatus_t each :
       {prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
               static_cast<std::uint64_t>(product_workspace_bytes)),
        prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
               static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE)),
        prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment(0)),
        prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment(1)),
        prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment(2)),
        prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment(2))})
    if (each != CUBLAS_STATUS_SUCCESS) status = each;
  cublasLtMatmulHeuristicResult_t best{};
  int num_found = 0;
  cublasStatus_t found = CUBLAS_STATUS_NOT_SUPPORTED;
  if (status == CUBLAS_STATUS_SUCCESS)
    found = lt.choose_algorithm(handle_, made->operation, made->a, made->b, made->d, made->d,
                                preference, 1, &best, &num_found);
  lt.destroy_preference(preference);
  check_status(status, "cublasLtMatmulPreferenceSetAttribute");
  made->chosen = best.algo;
  made->is_possible = found == CUBLAS_STATUS_SUCCESS && num_found == 1 &&
                      best.state == CUBLAS_STATUS_SUCCESS &&
                      best.workspaceSize <= static_cast<std::size_t>(product_workspace_bytes);
  return made;
}

bool CublasLt::multiply(const DenseProduct& p, std::byte* workspace, cudaStream_t stream) {
  const Shape shape = shape_of(p);
  auto found = algorithms_.find(shape);
  if (found == algorithms_.end()) {
    if (algorithms_.size() >= most_shapes) algorithms_.clear();
    found = algorithms_.emplace(shape, choose(shape)).first;
  }
  const Algorithm& algorithm = *found->second;
  if (!algorithm.is_possible) return false;
  const float one = 1.0f;
  const float beta = p.accumulates ? 1.0f : 0.0f;
  check_status(library_->multiply(handle_, algorithm.operation, &one, p.a.data, algorithm.a,
                                  p.b.data, algorithm.b, &beta, p.d.data, algorithm.d, p.d.data,
                                  algorithm.d, &algorithm.chosen, workspace,
                                  static_cast<std::size_t>(product_workspace_bytes), stream),
               "cublasLtMatmul");
  return true;
}

}  // namespace switchyard::kernels::cuda
