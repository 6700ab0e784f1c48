// Who watches the decisions of the routers in a training pass as they are taken, such as a trace.
#pragma once

#include <cstdint>

#include "experts/router/router.hpp"
#include "parallel/pass.hpp"

namespace switchyard {

class RoutingObserver {
 public:
  virtual ~RoutingObserver() = default;
  // moe_layer: of the layers with experts, the first being 0. The first num_tokens rows of `gate`
  // are the decisions for the tokens of the pass, which lie as it says.
  virtual void observe(std::int64_t moe_layer, const GateRecord& gate, std::int64_t num_tokens,
                       const Pass& pass) = 0;
};

}  // namespace switchyard
