#include "kshot/communicator.h"

#include <fmt/format.h>

#include <cstring>
#include <numeric>
#include <stdexcept>

#include "base/failure_watch.h"
#include "kshot/error.h"

namespace kshot {
namespace {

/// What every rank says at the beginning of an exchange.
struct Header {
  std::uint32_t failed = 0;
  std::uint32_t flags = 0;
  std::uint64_t bytes = 0;  ///< of what follows: the payload, or the text of a failure
  std::uint64_t what = 0;   ///< which exchange
};

/// FNV-1a: ranks whose calls are out of step notice it.
std::uint64_t hash(const char* text) {
  std::uint64_t h = 0xcbf29ce484222325u;
  for (; *text != '\0'; ++text) h = (h ^ static_cast<unsigned char>(*text)) * 0x100000001b3u;
  return h;
}

std::vector<Communicator::Bytes> divided(std::span<const std::byte> all,
                                         std::span<const std::size_t> sizes) {
  std::vector<Communicator::Bytes> parts;
  parts.reserve(sizes.size());
  std::size_t offset = 0;
  for (const std::size_t size : sizes) {
    const std::span<const std::byte> part = all.subspan(offset, size);
    parts.emplace_back(part.begin(), part.end());
    offset += size;
  }
  return parts;
}

std::size_t total(std::span<const std::size_t> sizes) {
  return std::accumulate(sizes.begin(), sizes.end(), std::size_t{0});
}

}  // namespace

std::vector<std::size_t> Communicator::begin(std::size_t bytes, const char* what) {
  if (failed_) throw Error(failure_);
  const Header mine{0, raised_, bytes, hash(what)};
  raised_ = 0;
  std::vector<Header> all(static_cast<std::size_t>(size_));
  gather_equal(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all)), what);
  std::vector<std::size_t> sizes, texts;
  bool any = false;
  for (std::size_t r = 0; r < all.size(); ++r) {
    const Header& h = all[r];
    flags_ |= h.flags;
    any = any || h.failed != 0;
    sizes.push_back(h.bytes);
    texts.push_back(h.failed != 0 ? h.bytes : 0);
    if (h.failed == 0 && h.what != mine.what) {
      failed_ = true;
      failure_ =
          fmt::format("rank {}: is at another exchange than rank {} (\"{}\")", r, rank_, what);
    }
  }
  if (any) learn_of_failures(texts, {}, what);
  if (failed_) throw std::logic_error(failure_);
  return sizes;
}

void Communicator::learn_of_failures(const std::vector<std::size_t>& texts, const std::string& mine,
                                     const char* what) {
  failed_ = true;
  Bytes all(total(texts));
  gather_varied(std::as_bytes(std::span(mine)), texts, all, what);
  const std::vector<Bytes> parts = divided(all, texts);
  std::size_t first = parts.size(), failures = 0;
  bool same = true;
  for (std::size_t r = parts.size(); r-- > 0;) {
    if (parts[r].empty()) continue;
    ++failures;
    same = same && (first == parts.size() || parts[r] == parts[first]);
    first = r;
  }
  const std::string text(reinterpret_cast<const char*>(parts[first].data()), parts[first].size());
  failure_ = failures == parts.size() && same ? text : fmt::format("rank {}: {}", first, text);
  throw Error(failure_);
}

void Communicator::fail(const std::string& message) noexcept {
  if (failed_ || size_ == 1) return;
  try {
    const std::string text = message.empty() ? "failed without a message" : message;
    const Header mine{1, 0, text.size(), 0};
    failed_ = true;
    failure_ = fmt::format("rank {}: {}", rank_, text);
    if (auto* const watch = dynamic_cast<FailureWatch*>(this)) watch->fail();
    std::vector<Header> all(static_cast<std::size_t>(size_));
    gather_equal(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all)),
                 "a failure");
    std::vector<std::size_t> texts;
    for (const Header& h : all) texts.push_back(h.failed != 0 ? h.bytes : 0);
    learn_of_failures(texts, text, "a failure");
  } catch (...) {  // learn_of_failures always throws; the caller has an error of its own
  }
}

std::vector<Communicator::Bytes> Communicator::all_gather(std::span<const std::byte> mine,
                                                          const char* what) {
  if (size_ == 1) return {Bytes(mine.begin(), mine.end())};
  const std::vector<std::size_t> sizes = begin(mine.size(), what);
  Bytes all(total(sizes));
  if (!all.empty()) gather_varied(mine, sizes, all, what);
  return divided(all, sizes);
}

std::vector<std::vector<double>> Communicator::all_gather(std::span<const double> mine,
                                                          const char* what) {
  std::vector<std::vector<double>> values;
  for (const Bytes& part : all_gather(std::as_bytes(mine), what)) {
    values.emplace_back(part.size() / sizeof(double));
    if (!part.empty()) std::memcpy(values.back().data(), part.data(), part.size());
  }
  return values;
}

std::vector<Communicator::Bytes> Communicator::all_to_all(const std::vector<Bytes>& to,
                                                          const char* what) {
  if (to.size() != static_cast<std::size_t>(size_)) throw std::logic_error("all_to_all: sizes");
  if (size_ == 1) return to;
  std::vector<std::size_t> to_sizes;
  Bytes all;
  for (const Bytes& part : to) {
    to_sizes.push_back(part.size());
    all.insert(all.end(), part.begin(), part.end());
  }
  begin(all.size(), what);
  // sizes[r] has what rank r sends to every rank.
  std::vector<std::size_t> sizes(to_sizes.size() * to_sizes.size());
  gather_equal(std::as_bytes(std::span(to_sizes)), std::as_writable_bytes(std::span(sizes)), what);
  std::vector<std::size_t> from_sizes;
  for (std::size_t r = 0; r < to_sizes.size(); ++r) {
    from_sizes.push_back(sizes[r * to_sizes.size() + static_cast<std::size_t>(rank_)]);
  }
  Bytes from(total(from_sizes));
  if (total(sizes) > 0) scatter_varied(all, to_sizes, from, from_sizes, what);
  return divided(from, from_sizes);
}

void Communicator::give_up(const char* what) {
  throw Error(fmt::format("a rank did not come to an exchange ({}) in time", what));
}

void Communicator::barrier(const char* what) {
  if (size_ > 1) begin(0, what);
}

}  // namespace kshot
