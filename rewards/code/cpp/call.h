// Reads arguments and writes results of declared types as JSON; runs in the candidate's process (driver.cpp, shim.j2).
// Sets, tuples and structs are arrays, maps are arrays of pairs. Nothing here is secret: a program that bypasses it to
// write a result still has to compute the right one. The input is trusted: values.py writes it.
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
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
  // Skips blanks, then `mark` if it is the next character; returns whether it was.
  bool skip(char mark) {
    while (*at == ' ') ++at;
    if (*at != mark) return false;
    ++at;
    return true;
  }
};
struct Out {
  std::string text;
};

template <class T, class = void> struct Codec;

// Reads an array element and the bracket or comma before it. A struct's fields are read in order, one call each.
template <class T> T item(In& in) {
  if (!in.skip('[')) in.skip(',');
  return Codec<T>::get(in);
}
template <class T> void put(Out& out, const T& value) { Codec<T>::put(out, value); }
template <class T> void put_item(Out& out, const T& value) {
  if (out.text.back() != '[') out.text += ',';
  Codec<T>::put(out, value);
}

// Writes the result of a call, converted to the declared type. A number that does not fit this type is written
// unconverted, and values.py rejects it.
template <class Declared, class T> void put_result(Out& out, T&& value) {
  using Returned = std::decay_t<T>;
  if constexpr (std::is_integral_v<Declared> && !std::is_same_v<Declared, bool> && std::is_arithmetic_v<Returned>) {
    if (static_cast<Returned>(static_cast<Declared>(value)) != value) return put_item<Returned>(out, value);
  }
  const Declared converted = std::forward<T>(value);
  put_item<Declared>(out, converted);
}

// Passes the arguments as lvalues; as rvalues only if lvalues do not fit (`vector<int>&&`). Fits: a callable whose
// signature accepts the same arguments as the candidate's function.
template <class Fits, class Call, class... T> void call(Fits, Call invoke, T&... args) {
  if constexpr (std::is_invocable_v<Fits, T...> && !std::is_invocable_v<Fits, T&...>) invoke(std::move(args)...);
  else invoke(args...);
}

template <class T> struct Codec<T, std::enable_if_t<std::is_integral_v<T>>> {
  static T get(In& in) {
    in.skip(' ');
    char* end;
    const T value = static_cast<T>(std::is_signed_v<T> ? std::strtoll(in.at, &end, 10) : std::strtoull(in.at, &end, 10));
    in.at = end;
    return value;
  }
  static void put(Out& out, T value) { out.text += std::to_string(value); }
};
template <> struct Codec<bool> {
  static bool get(In& in) {
    in.skip(' ');
    const bool value = *in.at == 't';
    in.at += value ? 4 : 5;
    return value;
  }
  static void put(Out& out, bool value) { out.text += value ? "true" : "false"; }
};
template <class T> struct Codec<T, std::enable_if_t<std::is_floating_point_v<T>>> {
  static T get(In& in) {
    char* end;
    const T value = static_cast<T>(std::strtod(in.at, &end));
    in.at = end;
    return value;
  }
  static void put(Out& out, T value) {
    char text[40];
    std::snprintf(text, sizeof text, "%.17g", static_cast<double>(value));
    out.text += std::isnan(value) ? "NaN" : std::isinf(value) ? (value < 0 ? "-Infinity" : "Infinity") : text;
    if (std::isfinite(value) && std::string_view(text).find_first_of(".e") == std::string_view::npos) out.text += ".0";
  }
};

template <> struct Codec<std::string> {
  static std::string get(In& in) {
    std::string value;
    for (in.skip('"'); *in.at != '"'; ++in.at) {
      if (*in.at != '\\') {
        value += *in.at;
      } else if (*++in.at == 'u') {  // json.dumps writes control characters as \u00XX
        value += static_cast<char>(std::strtol(std::string(in.at + 1, 4).c_str(), nullptr, 16));
        in.at += 4;
      } else {
        const auto at = std::string_view("bfnrt").find(*in.at);
        value += at == std::string_view::npos ? *in.at : "\b\f\n\r\t"[at];
      }
    }
    ++in.at;
    return value;
  }
  static void put(Out& out, std::string_view value) {
    out.text += '"';
    for (const char c : value) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\u%04x", static_cast<unsigned>(c));
      if (static_cast<unsigned char>(c) < 0x20) out.text += escaped;
      else if (c == '"' || c == '\\') (out.text += '\\') += c;
      else out.text += c;
    }
    out.text += '"';
  }
};
template <> struct Codec<char> {
  static char get(In& in) { return Codec<std::string>::get(in).at(0); }
  static void put(Out& out, char value) { Codec<std::string>::put(out, std::string_view(&value, 1)); }
};
template <> struct Codec<std::string_view> {
  static std::string_view get(In& in) { return *new std::string(Codec<std::string>::get(in)); }
  static void put(Out& out, std::string_view value) { Codec<std::string>::put(out, value); }
};

template <class T, class Item> struct Container {
  static T get(In& in) {
    T values;
    in.skip('[');
    while (!in.skip(']')) {
      in.skip(',');
      values.insert(values.end(), Codec<Item>::get(in));
    }
    return values;
  }
  static void put(Out& out, const T& values) {
    out.text += '[';
    for (const auto& value : values) put_item<Item>(out, value);
    out.text += ']';
  }
};
template <class T> struct Codec<std::vector<T>> : Container<std::vector<T>, T> {};
template <class T> struct Codec<std::list<T>> : Container<std::list<T>, T> {};
template <class T> struct Codec<std::deque<T>> : Container<std::deque<T>, T> {};
template <class T> struct Codec<std::set<T>> : Container<std::set<T>, T> {};
template <class T> struct Codec<std::unordered_set<T>> : Container<std::unordered_set<T>, T> {};
template <class K, class V> struct Codec<std::map<K, V>> : Container<std::map<K, V>, std::pair<K, V>> {};
template <class K, class V>
struct Codec<std::unordered_map<K, V>> : Container<std::unordered_map<K, V>, std::pair<K, V>> {};

template <class T, std::size_t N> struct Codec<std::array<T, N>> {
  static std::array<T, N> get(In& in) {
    std::array<T, N> values;
    for (auto& value : values) value = item<T>(in);
    in.skip(']');
    return values;
  }
  static void put(Out& out, const std::array<T, N>& values) { Container<std::array<T, N>, T>::put(out, values); }
};
template <class... T> struct Codec<std::tuple<T...>> {
  static std::tuple<T...> get(In& in) {
    std::tuple<T...> value{item<T>(in)...};
    in.skip(']');
    return value;
  }
  static void put(Out& out, const std::tuple<T...>& value) {
    out.text += '[';
    std::apply([&out](const T&... parts) { (put_item<T>(out, parts), ...); }, value);
    out.text += ']';
  }
};
template <class A, class B> struct Codec<std::pair<A, B>> {
  static std::pair<A, B> get(In& in) {
    auto value = Codec<std::tuple<A, B>>::get(in);
    return {std::get<0>(std::move(value)), std::get<1>(std::move(value))};
  }
  static void put(Out& out, const std::pair<A, B>& value) { Codec<std::tuple<A, B>>::put(out, value); }
};
template <class T> struct Codec<std::optional<T>> {
  static std::optional<T> get(In& in) {
    in.skip(' ');
    if (*in.at != 'n') return Codec<T>::get(in);
    in.at += 4;
    return std::nullopt;
  }
  static void put(Out& out, const std::optional<T>& value) {
    if (value) graded::put<T>(out, *value);
    else out.text += "null";
  }
};

}  // namespace graded
