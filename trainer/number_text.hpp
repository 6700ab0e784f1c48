// Numbers as people read them: a few digits and a unit.
#pragma once

#include <string>

namespace switchyard {

std::string format_count(double count);       // 987, 1.9k, 24.1M, 3.2B
std::string format_duration(double seconds);  // 00:42, 1:02:03
std::string format_bytes(double bytes);       // 512 B, 1.5 MiB

}  // namespace switchyard
