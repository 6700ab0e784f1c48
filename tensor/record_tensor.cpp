#include "tensor/record_tensor.hpp"

namespace switchyard {

void visit_tensor(const RecordVisitor& visit, std::string_view name, Tensor& tensor) {
  if (!tensor.empty()) visit({std::string(name), &tensor, tensor->rows(), false});
}

void visit_rows(const RecordVisitor& visit, std::string_view name, Tensor& tensor,
                std::int64_t num_rows) {
  if (!tensor.empty()) visit({std::string(name), &tensor, num_rows, true});
}

RecordVisitor with_prefix(std::string_view prefix, const RecordVisitor& visit) {
  return [start = std::string(prefix) + ".", &visit](RecordTensor part) {
    part.name.insert(0, start);
    visit(part);
  };
}

}  // namespace switchyard
