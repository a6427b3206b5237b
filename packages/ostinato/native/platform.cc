#include "platform.h"

#include <cstring>
#if OSTINATO_X86
#include <cpuid.h>
#endif
#if defined(_WIN32)
#include <windows.h>
#include <psapi.h>
#else
#include <dlfcn.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>
#if defined(__APPLE__)
#include <mach-o/dyld.h>
#include <sys/sysctl.h>
#else
#include <link.h>
#endif
#endif

#include <algorithm>
#include <cstdlib>
#include <iterator>

namespace ostinato {
namespace {

struct LibrarySearch {
  const char* const (&names)[3];
  std::string found;

  bool matches(const char* path) {
    const char* base = path;
    for (const char* at = path; *at; at++)
      if (*at == '/' || *at == '\\') base = at + 1;
    const auto contains = [&](const char* name) { return std::strstr(base, name) != nullptr; };
    if (!std::any_of(std::begin(names), std::end(names), contains)) return false;
    found = path;
    return true;
  }
};

}  // namespace

#if OSTINATO_X86
namespace {

// What the processor can do, and which registers the system keeps when it changes threads (XCR0).
// We ask it ourselves: zig's runtime answers every __builtin_cpu_supports with no.
struct Processor {
  unsigned leaf1_ecx = 0, leaf7_ebx = 0;
  uint64_t kept = 0;

  Processor() {
    constexpr unsigned kAsksSystem = 1 << 27;  // OSXSAVE: XCR0 may be read
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid(1, &eax, &ebx, &leaf1_ecx, &edx)) return;
    if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) leaf7_ebx = ebx;
    if (!(leaf1_ecx & kAsksSystem)) return;
    __asm__ volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
    kept = uint64_t(edx) << 32 | eax;
  }
};

template <class Bits> bool all(Bits of, Bits wanted) { return (of & wanted) == wanted; }

}  // namespace

bool has_avx2() {
  constexpr unsigned kFma = 1 << 12, kAvx = 1 << 28, kAvx2 = 1 << 5;
  constexpr uint64_t kYmm = 0b110;  // XMM and the upper halves of YMM
  static const Processor p;  // under a hypervisor each question takes 20 µs
  return all(p.leaf1_ecx, kFma | kAvx) && all(p.leaf7_ebx, kAvx2) && all(p.kept, kYmm);
}

// macOS keeps ZMM only from a thread's first use on, so that XCR0 denies it there.
bool has_avx512() {
  constexpr unsigned kF = 1 << 16, kDq = 1 << 17, kBw = 1 << 30, kVl = 1u << 31;
  constexpr uint64_t kZmm = 0b1110'0000;  // masks, the upper halves of ZMM, and ZMM16 to 31
  static const Processor p;  // under a hypervisor each question takes 20 µs
  return has_avx2() && all(p.leaf7_ebx, kF | kDq | kBw | kVl) && all(p.kept, kZmm);
}
#endif

#if defined(_WIN32)

int64_t l1_data_bytes() { return 0; }

int64_t now_ns() {
  LARGE_INTEGER count, per_second;
  QueryPerformanceCounter(&count);
  QueryPerformanceFrequency(&per_second);
  const int64_t n = count.QuadPart, f = per_second.QuadPart;
  return n / f * 1'000'000'000 + n % f * 1'000'000'000 / f;
}

// Windows counts a thread's time in steps of 15 ms, too coarse to see that a core was lost.
int64_t thread_cpu_ns() { return now_ns(); }

bool call_in_forked_children(void (*)()) { return false; }  // no process forks

char* aligned_memory(size_t line, size_t bytes) { return static_cast<char*>(_aligned_malloc(bytes, line)); }
void free_aligned_memory(char* memory) { _aligned_free(memory); }

std::string loaded_library(const char* const (&names)[3]) {
  LibrarySearch search{names, {}};
  HMODULE modules[1024];
  DWORD bytes = 0;
  if (!K32EnumProcessModules(GetCurrentProcess(), modules, sizeof modules, &bytes)) return "";
  for (size_t i = 0; i < std::min<size_t>(bytes / sizeof *modules, std::size(modules)); i++) {
    char path[4 * MAX_PATH];
    if (GetModuleFileNameA(modules[i], path, sizeof path) && search.matches(path)) break;
  }
  return search.found;
}

void* function_of(const std::string& library, const char* name) {
  HMODULE module = GetModuleHandleA(library.c_str());
  return module ? reinterpret_cast<void*>(GetProcAddress(module, name)) : nullptr;
}

#else

namespace {

int64_t ns_of(clockid_t clock) {
  timespec t;
  clock_gettime(clock, &t);
  return int64_t(t.tv_sec) * 1'000'000'000 + t.tv_nsec;
}

}  // namespace

int64_t now_ns() { return ns_of(CLOCK_MONOTONIC); }
int64_t thread_cpu_ns() { return ns_of(CLOCK_THREAD_CPUTIME_ID); }

bool call_in_forked_children(void (*f)()) { return pthread_atfork(nullptr, nullptr, f) == 0; }

char* aligned_memory(size_t line, size_t bytes) {
  return static_cast<char*>(std::aligned_alloc(line, bytes));
}
void free_aligned_memory(char* memory) { std::free(memory); }

void* function_of(const std::string& library, const char* name) {
  void* handle = library.empty() ? nullptr : dlopen(library.c_str(), RTLD_LAZY | RTLD_NOLOAD);
  return handle ? dlsym(handle, name) : nullptr;
}

#if defined(__APPLE__)

int64_t l1_data_bytes() {
  int64_t bytes = 0;
  size_t size = sizeof bytes;
  return sysctlbyname("hw.l1dcachesize", &bytes, &size, nullptr, 0) == 0 ? bytes : 0;
}

std::string loaded_library(const char* const (&names)[3]) {
  LibrarySearch search{names, {}};
  for (uint32_t i = 0; i < _dyld_image_count(); i++) {
    const char* path = _dyld_get_image_name(i);
    if (path && search.matches(path)) break;
  }
  return search.found;
}

#else

int64_t l1_data_bytes() {
#ifdef _SC_LEVEL1_DCACHE_SIZE
  return sysconf(_SC_LEVEL1_DCACHE_SIZE);
#else
  return 0;
#endif
}

std::string loaded_library(const char* const (&names)[3]) {
  LibrarySearch search{names, {}};
  const auto visit = [](dl_phdr_info* info, size_t, void* out) {
    return int(static_cast<LibrarySearch*>(out)->matches(info->dlpi_name));
  };
  dl_iterate_phdr(visit, &search);
  return search.found;
}

#endif
#endif

}  // namespace ostinato
