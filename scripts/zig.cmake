# A toolchain file: zig compiles for the system that the variable OSTINATO_TARGET of the environment names in its
# words, such as aarch64-linux-gnu.2.17 (the oldest glibc). pip install ziglang
string(REGEX REPLACE "-.*" "" CMAKE_SYSTEM_PROCESSOR "$ENV{OSTINATO_TARGET}")
if("$ENV{OSTINATO_TARGET}" MATCHES "windows")
  set(CMAKE_SYSTEM_NAME Windows)
elseif("$ENV{OSTINATO_TARGET}" MATCHES "macos")
  set(CMAKE_SYSTEM_NAME Darwin)
  set(CMAKE_INSTALL_NAME_TOOL true)  # CMake asks for Apple's; nothing here needs it
else()
  set(CMAKE_SYSTEM_NAME Linux)
endif()
set(ZIG "$ENV{OSTINATO_ZIG}")
set(CMAKE_CXX_COMPILER "${ZIG}" c++ -target $ENV{OSTINATO_TARGET})
# nanobind expects stdio.h of the standard library, and libc++ does not bring it.
set(CMAKE_CXX_FLAGS_INIT "-include cstdio")
set(CMAKE_CXX_ARCHIVE_CREATE "${ZIG} ar qc <TARGET> <OBJECTS>")
set(CMAKE_CXX_ARCHIVE_FINISH "${ZIG} ranlib <TARGET>")
