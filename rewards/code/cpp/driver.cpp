// The main function of a program under tests of kind "call"; runs in the candidate's process. It reads the arguments
// from standard input and writes the result to descriptor 3: an array of the returned value and of the mutable
// references, or an object with the classes and the message of the exception thrown. values.py validates the result.
// Compiled once per toolchain. `graded_call` is the shim (shim.j2) at the end of the candidate's source (toolchain.py).

#include <unistd.h>

#include <new>
#include <stdexcept>
#include <string>

#include "call.h"

void graded_call(graded::In& in, graded::Out& out);

namespace {

// Adds the class name `text` to `names` if the exception is an E.
template <class E> void name(const std::exception& thrown, const char* text, std::string& names) {
  if (dynamic_cast<const E*>(&thrown)) names += std::string(text) + ",";
}

// The standard classes of an exception, comma-separated, the most derived first.
std::string classes(const std::exception& thrown) {
  std::string names;
  name<std::invalid_argument>(thrown, "std::invalid_argument", names);
  name<std::domain_error>(thrown, "std::domain_error", names);
  name<std::length_error>(thrown, "std::length_error", names);
  name<std::out_of_range>(thrown, "std::out_of_range", names);
  name<std::logic_error>(thrown, "std::logic_error", names);
  name<std::range_error>(thrown, "std::range_error", names);
  name<std::overflow_error>(thrown, "std::overflow_error", names);
  name<std::underflow_error>(thrown, "std::underflow_error", names);
  name<std::runtime_error>(thrown, "std::runtime_error", names);
  name<std::bad_alloc>(thrown, "std::bad_alloc", names);
  return names + "std::exception";
}

// All of standard input.
std::string arguments() {
  std::string bytes;
  static char part[1 << 16];
  for (ssize_t size; (size = read(0, part, sizeof part)) > 0;) bytes.append(part, static_cast<std::size_t>(size));
  return bytes;
}

// Replaces the output with the object for an exception.
void failed(graded::Out& out, const std::string& names, const std::string& message) {
  out.text = "{\"raised\":\"" + names + "\",\"message\":";
  graded::put(out, message);
  out.text += "}";
}

}  // namespace

int main() {
  const std::string bytes = arguments();
  graded::In in{bytes.c_str()};
  graded::Out out{"["};
  try {
    graded_call(in, out);
    out.text += "]";
  } catch (const std::exception& thrown) {
    failed(out, classes(thrown), thrown.what());
  } catch (...) {
    failed(out, "", "an exception that is not a std::exception");
  }
  for (std::size_t done = 0; done < out.text.size();) {
    const ssize_t written = write(3, out.text.data() + done, out.text.size() - done);
    if (written <= 0) _exit(101);
    done += static_cast<std::size_t>(written);
  }
  _exit(0);
}
