// Memory that plays leave to the next ones, of any program. So the forward and the backward pass, or two
// layers, use the same lines of the caches: 5 % of a call on one row.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <new>

#include "platform.h"
#include "tuning.h"

namespace ostinato {

// One piece of memory, aligned to lines. It grows and never shrinks.
class Workspace {
 public:
  Workspace() = default;
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  ~Workspace() { free_aligned_memory(data_); }
  char* reserve(int64_t bytes) {  // a multiple of kLineBytes
    if (bytes > size_) {
      free_aligned_memory(data_);
      size_ = 0;
      data_ = aligned_memory(kLineBytes, size_t(bytes));
      if (!data_) throw std::bad_alloc();
      size_ = bytes;
    }
    allow(data_, size_t(size_));
    return data_;
  }
  int64_t size() const { return size_; }

 private:
  char* data_ = nullptr;
  int64_t size_ = 0;
};

// Pieces of one memory, one after the other. With AddressSanitizer a line that nobody may touch follows each.
constexpr int64_t kGapBytes = kForbids ? kLineBytes : 0;
template <class U> int64_t bytes_of(int64_t n) {
  return (n * int64_t(sizeof(U)) + kLineBytes - 1) / kLineBytes * kLineBytes + kGapBytes;
}
template <class U> U* piece(char*& memory, int64_t n) {
  U* const found = reinterpret_cast<U*>(memory);
  memory += bytes_of<U>(n);
  forbid(found + n, size_t(memory - reinterpret_cast<char*>(found + n)));
  return found;
}

// Keeps a workspace for each of a few callers at once, as large as that of its largest play.
// There is no lock: a child forked while another thread holds one would wait for ever.
class Workspaces {
 public:
  Workspaces() = default;
  Workspaces(const Workspaces&) = delete;
  Workspaces& operator=(const Workspaces&) = delete;
  ~Workspaces() {
    for (auto& place : kept_) delete place.load();
  }
  std::unique_ptr<Workspace> take() {
    for (auto& place : kept_)
      if (Workspace* memory = place.exchange(nullptr)) return std::unique_ptr<Workspace>(memory);
    return std::make_unique<Workspace>();
  }
  void give(std::unique_ptr<Workspace> memory) {
    for (auto& place : kept_) {
      Workspace* none = nullptr;
      if (!place.compare_exchange_strong(none, memory.get())) continue;
      memory.release();
      return;
    }
  }
  // For tests: a play that begins meanwhile may find no workspace, and make its own.
  int64_t kept_bytes() {
    int64_t bytes = 0;
    for (auto& place : kept_) {
      std::unique_ptr<Workspace> memory(place.exchange(nullptr));
      if (!memory) continue;
      bytes += memory->size();
      give(std::move(memory));
    }
    return bytes;
  }

 private:
  std::atomic<Workspace*> kept_[kKeptWorkspaces]{};
};

}  // namespace ostinato
