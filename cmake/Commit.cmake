# Writes the header that names the commit, at every build; the file changes only when the commit does.
#   cmake -D SOURCE=FOLDER -D OUTPUT=FILE [-D COMMIT=NAME] -P Commit.cmake
# COMMIT: for sources without their history, as an archive of them.
set(name "${COMMIT}")
if(name STREQUAL "")
  execute_process(
    COMMAND git --no-optional-locks describe --always --dirty --abbrev=12 --exclude=*
    WORKING_DIRECTORY ${SOURCE} OUTPUT_VARIABLE name OUTPUT_STRIP_TRAILING_WHITESPACE
    ERROR_QUIET RESULT_VARIABLE failed)
  if(failed OR name STREQUAL "")
    set(name "unknown")
  endif()
endif()
set(text "// Written by cmake/Commit.cmake.\n#pragma once\n\nnamespace switchyard::version {\n\n")
string(APPEND text "inline constexpr const char* commit = \"${name}\";\n\n}  // namespace switchyard::version\n")
set(old "")
if(EXISTS ${OUTPUT})
  file(READ ${OUTPUT} old)
endif()
if(NOT old STREQUAL text)
  file(WRITE ${OUTPUT} "${text}")
endif()
