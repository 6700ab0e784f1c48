#include "tensor/work_record.hpp"

namespace switchyard {

std::int64_t WorkRecord::add(const WorkUnit& unit, WorkItem item) {
  const auto [place, is_new] = index_.emplace(unit, static_cast<std::int64_t>(works_.size()));
  if (is_new) works_.push_back(unit);
  item.what = unit.is_exchange ? WorkItem::What::exchange : WorkItem::What::kernel;
  item.unit = place->second;
  items_.push_back(item);
  return unit.is_exchange ? num_exchanges_++ : 0;
}

void WorkRecord::add_wait(std::int64_t exchange, WorkItem item) {
  item.what = WorkItem::What::wait;
  item.unit = exchange;
  items_.push_back(item);
}

void WorkRecord::clear() {
  works_.clear();
  index_.clear();
  items_.clear();
  num_exchanges_ = 0;
}

}  // namespace switchyard
