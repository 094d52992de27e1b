// Reads arguments and writes results of declared types; part of every precompiled header. rewards/code/cpp/values.py
// has the format. Nothing here is secret: a program that writes a result by itself still has to know the right one.
#include <array>
#include <cstdint>
#include <cstring>
#include <deque>
#include <list>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

namespace graded {

struct In {
  const char* at;
  const char* end;
  const char* take(std::uint64_t size) {
    if (size > static_cast<std::uint64_t>(end - at)) throw "arguments end too early";
    at += size;
    return at - size;
  }
  template <class T> T raw() {
    T value;
    std::memcpy(&value, take(sizeof value), sizeof value);
    return value;
  }
};

struct Out {
  std::string bytes;
  template <class T> void raw(T value) { bytes.append(reinterpret_cast<const char*>(&value), sizeof value); }
};

template <class T, class = void> struct Codec;

template <class T> T get(In& in) { return Codec<T>::get(in); }
template <class T> void put(Out& out, const T& value) { Codec<T>::put(out, value); }

template <class T> struct Codec<T, std::enable_if_t<std::is_arithmetic_v<T>>> {
  using Wire = std::conditional_t<
      std::is_same_v<T, bool> || std::is_same_v<T, char>, char,
      std::conditional_t<std::is_floating_point_v<T>, double,
                         std::conditional_t<std::is_signed_v<T>, std::int64_t, std::uint64_t>>>;
  static T get(In& in) { return static_cast<T>(in.raw<Wire>()); }
  static void put(Out& out, T value) { out.raw(static_cast<Wire>(value)); }
};

template <> struct Codec<std::string> {
  static std::string get(In& in) {
    const auto size = in.raw<std::uint64_t>();
    return std::string(in.take(size), size);
  }
  static void put(Out& out, const std::string& value) {
    out.raw(static_cast<std::uint64_t>(value.size()));
    out.bytes += value;
  }
};
template <> struct Codec<std::string_view> {  // the arguments outlive the call
  static std::string_view get(In& in) {
    const auto size = in.raw<std::uint64_t>();
    return std::string_view(in.take(size), size);
  }
  static void put(Out& out, std::string_view value) { Codec<std::string>::put(out, std::string(value)); }
};

template <class T, class Item> struct Sequence {
  static T get(In& in) {
    T values;
    for (auto left = in.raw<std::uint64_t>(); left > 0; --left) values.insert(values.end(), graded::get<Item>(in));
    return values;
  }
  static void put(Out& out, const T& values) {
    out.raw(static_cast<std::uint64_t>(values.size()));
    for (const auto& value : values) graded::put<Item>(out, value);
  }
};
template <class T> struct Codec<std::vector<T>> : Sequence<std::vector<T>, T> {};
template <class T> struct Codec<std::list<T>> : Sequence<std::list<T>, T> {};
template <class T> struct Codec<std::deque<T>> : Sequence<std::deque<T>, T> {};
template <class T> struct Codec<std::set<T>> : Sequence<std::set<T>, T> {};
template <class T> struct Codec<std::unordered_set<T>> : Sequence<std::unordered_set<T>, T> {};
template <class K, class V> struct Codec<std::map<K, V>> : Sequence<std::map<K, V>, std::pair<K, V>> {};
template <class K, class V>
struct Codec<std::unordered_map<K, V>> : Sequence<std::unordered_map<K, V>, std::pair<K, V>> {};

template <class T, std::size_t N> struct Codec<std::array<T, N>> {
  static std::array<T, N> get(In& in) {
    std::array<T, N> values;
    for (auto& value : values) value = graded::get<T>(in);
    return values;
  }
  static void put(Out& out, const std::array<T, N>& values) {
    for (const auto& value : values) graded::put<T>(out, value);
  }
};
template <class A, class B> struct Codec<std::pair<A, B>> {
  static std::pair<A, B> get(In& in) { return std::pair<A, B>{graded::get<A>(in), graded::get<B>(in)}; }
  static void put(Out& out, const std::pair<A, B>& value) {
    graded::put<A>(out, value.first);
    graded::put<B>(out, value.second);
  }
};
template <class... T> struct Codec<std::tuple<T...>> {
  static std::tuple<T...> get(In& in) { return std::tuple<T...>{graded::get<T>(in)...}; }
  static void put(Out& out, const std::tuple<T...>& value) {
    std::apply([&out](const T&... parts) { (graded::put<T>(out, parts), ...); }, value);
  }
};
template <class T> struct Codec<std::optional<T>> {
  static std::optional<T> get(In& in) {
    return in.raw<char>() ? std::optional<T>(graded::get<T>(in)) : std::optional<T>();
  }
  static void put(Out& out, const std::optional<T>& value) {
    out.raw(static_cast<char>(value.has_value()));
    if (value) graded::put<T>(out, *value);
  }
};

}  // namespace graded
