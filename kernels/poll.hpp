// What a long kernel calls between its blocks, so that exchanges under way advance. Called by the
// calling thread only, never by the others of its team; may be empty.
#pragma once

#include <functional>

namespace switchyard::kernels {

using Poll = std::function<void()>;

}  // namespace switchyard::kernels
