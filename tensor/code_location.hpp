// Where in the source a function was called: the default argument of checks, so that their message
// names the caller. The same as std::source_location, whose libstdc++ 12 form clang 14 and its
// tools cannot read; all compilers in use know these builtins. Holds pointers to literals only.
#pragma once

namespace switchyard {

struct CodeLocation {
  const char* file = "";
  int line = 0;
  const char* function = "";

  // As a default argument it tells the place of the call.
  static constexpr CodeLocation current(const char* file = __builtin_FILE(),
                                        int line = __builtin_LINE(),
                                        const char* function = __builtin_FUNCTION()) {
    return {file, line, function};
  }
};

}  // namespace switchyard
