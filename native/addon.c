/*
 * The addon: NetlinkSocket, IcmpSocket and UnixSocket, with the methods send, deliver, receive, readable and close.
 * It moves datagrams and knows nothing of what is in them. Beside them, trim(), of malloc's. src/native.ts says the types.
 */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/netlink.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <node_api.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "socket.h"

struct handle {
  napi_env env;
  int fd;                     /* -1: closed */
  napi_ref self;              /* The JavaScript object: strong during a wait, so that it is not collected then. */
  uv_poll_t *poll;            /* Made by the first wait. Memory of its own, since it outlives uv_close. */
  napi_deferred waiting;      /* NULL: nobody waits in readable(). */
  napi_async_context context; /* Lives as long as the wait. */
};

struct bytes {
  void *data;
  size_t length;
};

/* ---- Errors: each throws and returns NULL, which is what a callback returns after a throw ---- */

static void *throw_type(napi_env env, const char *message) {
  napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", message);
  return NULL;
}

static void *throw_range(napi_env env, const char *message) {
  napi_throw_range_error(env, "ERR_OUT_OF_RANGE", message);
  return NULL;
}

/* In the form of Node's own: "ENOENT: no such file or directory, open '/run/netns/x'". path may be NULL. */
static napi_value failure_error(napi_env env, struct failure failure, const char *path) {
  char code[64], reason[128], text[PATH_MAX + 256];
  uv_err_name_r(-failure.error, code, sizeof code);
  uv_strerror_r(-failure.error, reason, sizeof reason);
  if (path == NULL) snprintf(text, sizeof text, "%s: %s, %s", code, reason, failure.syscall);
  else snprintf(text, sizeof text, "%s: %s, %s '%s'", code, reason, failure.syscall, path);

  napi_value code_value, message, error, number, name;
  if (napi_create_string_utf8(env, code, NAPI_AUTO_LENGTH, &code_value) == napi_ok &&
      napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &message) == napi_ok &&
      napi_create_error(env, code_value, message, &error) == napi_ok &&
      napi_create_int32(env, failure.error, &number) == napi_ok &&
      napi_set_named_property(env, error, "errno", number) == napi_ok &&
      napi_create_string_utf8(env, failure.syscall, NAPI_AUTO_LENGTH, &name) == napi_ok &&
      napi_set_named_property(env, error, "syscall", name) == napi_ok) {
    return error;
  }
  return NULL;
}

static void *throw_failure(napi_env env, struct failure failure, const char *path) {
  napi_value error = failure_error(env, failure, path);
  if (error != NULL) napi_throw(env, error);
  return NULL;
}

/* ---- Arguments ---- */

static bool get_bytes(napi_env env, napi_value value, napi_typedarray_type wanted, struct bytes *bytes) {
  bool is_typed_array = false;
  if (napi_is_typedarray(env, value, &is_typed_array) != napi_ok || !is_typed_array) return false;
  napi_typedarray_type type;
  return napi_get_typedarray_info(env, value, &type, &bytes->length, &bytes->data, NULL, NULL) == napi_ok &&
         type == wanted;
}

/* A path, or undefined, which leaves *path NULL. */
static bool get_path(napi_env env, napi_value value, char buffer[PATH_MAX], const char **path) {
  *path = NULL;
  napi_valuetype type;
  if (napi_typeof(env, value, &type) == napi_ok && type == napi_undefined) return true;
  size_t length;
  if (napi_get_value_string_utf8(env, value, NULL, 0, &length) != napi_ok || length >= PATH_MAX) return false;
  if (napi_get_value_string_utf8(env, value, buffer, PATH_MAX, &length) != napi_ok) return false;
  *path = buffer;
  return length > 0 && strlen(buffer) == length;
}

/* ---- Closing ---- */

static void free_poll(uv_handle_t *poll) {
  free(poll);
}

/* uv_close forgets the descriptor at once, and calls free_poll in a later turn of the loop. */
static void close_handle(struct handle *handle) {
  if (handle->poll != NULL) uv_close((uv_handle_t *)handle->poll, free_poll);
  handle->poll = NULL;
  if (handle->fd >= 0) close(handle->fd);
  handle->fd = -1;
}

static void finalize(napi_env env, void *data, void *hint) {
  (void)hint;
  struct handle *handle = data;
  close_handle(handle);
  if (handle->context != NULL) napi_async_destroy(env, handle->context);
  napi_delete_reference(env, handle->self);
  free(handle);
}

/* ---- Constructors ---- */

/* The arguments of a call with `new`; those that are absent are undefined. */
static bool get_construction(napi_env env, napi_callback_info info, napi_value *this, napi_value *arguments,
                             size_t count) {
  napi_value target = NULL;
  if (napi_get_new_target(env, info, &target) != napi_ok || target == NULL) {
    throw_type(env, "a socket is made with `new`");
    return false;
  }
  return napi_get_cb_info(env, info, &count, arguments, this, NULL) == napi_ok;
}

static napi_value wrap(napi_env env, napi_value this, int fd) {
  struct handle *handle = calloc(1, sizeof *handle);
  if (handle == NULL) {
    close(fd);
    return throw_failure(env, (struct failure){ .syscall = "calloc", .error = ENOMEM }, NULL);
  }
  handle->env = env;
  handle->fd = fd;
  if (napi_wrap(env, this, handle, finalize, NULL, &handle->self) != napi_ok) {
    close(fd);
    free(handle);
    return throw_type(env, "the object cannot hold a socket");
  }
  return this;
}

/* new NetlinkSocket(netns: string | undefined, protocol: number, groups: Uint32Array, receiveBuffer: number) */
static napi_value construct_netlink(napi_env env, napi_callback_info info) {
  napi_value this, arguments[4];
  if (!get_construction(env, info, &this, arguments, 4)) return NULL;
  char buffer[PATH_MAX];
  const char *netns;
  double protocol;
  struct bytes groups;
  int32_t receive_buffer;
  if (!get_path(env, arguments[0], buffer, &netns)) return throw_type(env, "netns must be a path");
  if (napi_get_value_double(env, arguments[1], &protocol) != napi_ok) {
    return throw_type(env, "protocol must be a number");
  }
  if (protocol != NETLINK_ROUTE && protocol != NETLINK_GENERIC) {
    return throw_range(env, "protocol must be 0 (NETLINK_ROUTE) or 16 (NETLINK_GENERIC)");
  }
  if (!get_bytes(env, arguments[2], napi_uint32_array, &groups)) {
    return throw_type(env, "groups must be a Uint32Array");
  }
  if (napi_get_value_int32(env, arguments[3], &receive_buffer) != napi_ok) {
    return throw_type(env, "receiveBuffer must be a number");
  }
  if (receive_buffer < 0) return throw_range(env, "receiveBuffer must not be negative");
  struct failure failure;
  int fd = open_netlink(netns, (int)protocol, groups.data, groups.length, receive_buffer, &failure);
  return fd < 0 ? throw_failure(env, failure, netns) : wrap(env, this, fd);
}

/* new IcmpSocket(netns: string | undefined, destination: Uint8Array) */
static napi_value construct_icmp(napi_env env, napi_callback_info info) {
  napi_value this, arguments[2];
  if (!get_construction(env, info, &this, arguments, 2)) return NULL;
  char buffer[PATH_MAX];
  const char *netns;
  struct bytes bytes;
  if (!get_path(env, arguments[0], buffer, &netns)) return throw_type(env, "netns must be a path");
  if (!get_bytes(env, arguments[1], napi_uint8_array, &bytes)) {
    return throw_type(env, "destination must be a Uint8Array");
  }
  struct in_addr destination;
  struct in6_addr destination6;
  struct failure failure;
  int fd;
  if (bytes.length == sizeof destination) {
    memcpy(&destination, bytes.data, sizeof destination);
    fd = open_icmp(netns, destination, &failure);
  } else if (bytes.length == sizeof destination6) {
    memcpy(&destination6, bytes.data, sizeof destination6);
    fd = open_icmp6(netns, destination6, &failure);
  } else {
    return throw_range(env, "destination must have 4 or 16 bytes");
  }
  return fd < 0 ? throw_failure(env, failure, netns) : wrap(env, this, fd);
}

/* new UnixSocket(path: string) */
static napi_value construct_unix(napi_env env, napi_callback_info info) {
  napi_value this, arguments[1];
  if (!get_construction(env, info, &this, arguments, 1)) return NULL;
  char buffer[PATH_MAX];
  const char *path;
  if (!get_path(env, arguments[0], buffer, &path) || path == NULL) return throw_type(env, "path must be a path");
  struct failure failure;
  int fd = open_unix(path, &failure);
  return fd < 0 ? throw_failure(env, failure, path) : wrap(env, this, fd);
}

/* ---- Methods ---- */

/* The socket behind `this`, or NULL after a throw. V8 itself refuses a `this` of another class. */
static struct handle *get_handle(napi_env env, napi_callback_info info, napi_value *arguments, size_t count) {
  napi_value this;
  void *handle;
  if (napi_get_cb_info(env, info, &count, arguments, &this, NULL) != napi_ok ||
      napi_unwrap(env, this, &handle) != napi_ok) {
    return throw_type(env, "not a socket");
  }
  return handle;
}

static struct handle *get_open_handle(napi_env env, napi_callback_info info, napi_value *arguments, size_t count) {
  struct handle *handle = get_handle(env, info, arguments, count);
  if (handle == NULL || handle->fd >= 0) return handle;
  napi_throw_error(env, "ERR_SOCKET_CLOSED", "the socket is closed");
  return NULL;
}

/* The errno, 0 when it was sent. */
static int send_bytes(int fd, struct bytes bytes) {
  ssize_t sent;
  do {
    sent = send(fd, bytes.data, bytes.length, 0);
  } while (sent < 0 && errno == EINTR);
  return sent < 0 ? errno : 0;
}

/* The open socket and the bytes of send(bytes) and deliver(bytes), or NULL after a throw. */
static struct handle *get_sending(napi_env env, napi_callback_info info, napi_value *value, struct bytes *bytes) {
  struct handle *handle = get_open_handle(env, info, value, 1);
  if (handle == NULL) return NULL;
  if (!get_bytes(env, *value, napi_uint8_array, bytes)) return throw_type(env, "bytes must be a Uint8Array");
  if (bytes->length == 0) return throw_range(env, "bytes must not be empty");
  return handle;
}

/* send(bytes: Uint8Array): void */
static napi_value method_send(napi_env env, napi_callback_info info) {
  napi_value value;
  struct bytes bytes;
  struct handle *handle = get_sending(env, info, &value, &bytes);
  if (handle == NULL) return NULL;
  int error = send_bytes(handle->fd, bytes);
  if (error != 0) throw_failure(env, (struct failure){ .syscall = "send", .error = error }, NULL);
  return NULL;
}

struct delivery {
  int fd; /* A duplicate: the socket may be closed meanwhile, and its number be another file's. */
  napi_deferred done;
  napi_async_work work;
  int error;
  size_t length;
  uint8_t data[]; /* A copy: what JavaScript has may be written, moved or freed meanwhile. */
};

static void execute_delivery(napi_env env, void *data) {
  (void)env;
  struct delivery *delivery = data;
  delivery->error = send_bytes(delivery->fd, (struct bytes){ .data = delivery->data, .length = delivery->length });
}

static void complete_delivery(napi_env env, napi_status status, void *data) {
  struct delivery *delivery = data;
  napi_value result;
  if (status != napi_ok) delivery->error = ECANCELED;
  if (delivery->error == 0) {
    napi_get_undefined(env, &result);
    napi_resolve_deferred(env, delivery->done, result);
  } else {
    result = failure_error(env, (struct failure){ .syscall = "send", .error = delivery->error }, NULL);
    if (result != NULL) napi_reject_deferred(env, delivery->done, result);
  }
  napi_delete_async_work(env, delivery->work);
  close(delivery->fd);
  free(delivery);
}

/* deliver(bytes: Uint8Array): Promise<void>. As send, on a thread of libuv's. */
static napi_value method_deliver(napi_env env, napi_callback_info info) {
  napi_value value, name, promise;
  struct bytes bytes;
  struct handle *handle = get_sending(env, info, &value, &bytes);
  if (handle == NULL) return NULL;
  struct delivery *delivery = malloc(sizeof *delivery + bytes.length);
  if (delivery == NULL) return throw_failure(env, (struct failure){ .syscall = "malloc", .error = ENOMEM }, NULL);
  *delivery = (struct delivery){ .fd = fcntl(handle->fd, F_DUPFD_CLOEXEC, 0), .length = bytes.length };
  memcpy(delivery->data, bytes.data, bytes.length);
  if (delivery->fd < 0) {
    free(delivery);
    return throw_failure(env, (struct failure){ .syscall = "fcntl", .error = errno }, NULL);
  }
  if (napi_create_string_utf8(env, "tweed.deliver", NAPI_AUTO_LENGTH, &name) == napi_ok &&
      napi_create_async_work(env, NULL, name, execute_delivery, complete_delivery, delivery, &delivery->work) ==
        napi_ok &&
      napi_create_promise(env, &delivery->done, &promise) == napi_ok &&
      napi_queue_async_work(env, delivery->work) == napi_ok) {
    return promise;
  }
  if (delivery->work != NULL) napi_delete_async_work(env, delivery->work);
  close(delivery->fd);
  free(delivery);
  return NULL;
}

/* receive(slots: Uint8Array, slotSize: number, lengths: Uint32Array, timeout: number): number | 'overrun' */
static napi_value method_receive(napi_env env, napi_callback_info info) {
  napi_value arguments[4], result = NULL;
  struct handle *handle = get_open_handle(env, info, arguments, 4);
  if (handle == NULL) return NULL;
  struct bytes slots, lengths;
  int32_t slot_size, timeout;
  if (!get_bytes(env, arguments[0], napi_uint8_array, &slots) ||
      !get_bytes(env, arguments[2], napi_uint32_array, &lengths)) {
    return throw_type(env, "slots must be a Uint8Array, lengths a Uint32Array");
  }
  if (napi_get_value_int32(env, arguments[1], &slot_size) != napi_ok ||
      napi_get_value_int32(env, arguments[3], &timeout) != napi_ok) {
    return throw_type(env, "slotSize and timeout must be numbers");
  }
  if (timeout < 0) return throw_range(env, "timeout must not be negative");
  if (slot_size <= 0) return throw_range(env, "slotSize must be positive");
  size_t count = slots.length / (size_t)slot_size;
  if (count > lengths.length) count = lengths.length;
  if (count == 0) return throw_range(env, "slots and lengths must have room for one datagram");

  struct failure failure;
  int received =
    receive_batch(handle->fd, slots.data, (size_t)slot_size, lengths.data, count, timeout, &failure);
  if (received >= 0) napi_create_int32(env, received, &result);
  else if (failure.error == ENOBUFS) napi_create_string_utf8(env, "overrun", NAPI_AUTO_LENGTH, &result);
  else throw_failure(env, failure, NULL);
  return result;
}

static void settle(struct handle *handle, bool readable) {
  napi_value value;
  napi_deferred waiting = handle->waiting;
  handle->waiting = NULL;
  napi_reference_unref(handle->env, handle->self, NULL);
  napi_get_boolean(handle->env, readable, &value);
  napi_resolve_deferred(handle->env, waiting, value);
}

/*
 * One event ends the wait. An overrun comes as status UV_EBADF, and libuv has then stopped the watch: it counts
 * as readable, because the next receive tells what is the matter, and the next wait starts a new watch.
 */
static void on_readable(uv_poll_t *poll, int status, int events) {
  (void)status;
  (void)events;
  struct handle *handle = poll->data;
  napi_env env = handle->env;
  napi_async_context context = handle->context;
  napi_handle_scope handle_scope;
  napi_callback_scope callback_scope;
  uv_poll_stop(poll);
  handle->context = NULL;
  napi_open_handle_scope(env, &handle_scope);
  napi_open_callback_scope(env, NULL, context, &callback_scope);
  settle(handle, true);
  napi_close_callback_scope(env, callback_scope); /* Runs what waited, which may close the socket. */
  napi_async_destroy(env, context);
  napi_close_handle_scope(env, handle_scope);
}

static int start_poll(struct handle *handle) {
  if (handle->poll == NULL) {
    uv_loop_t *loop;
    uv_poll_t *poll = malloc(sizeof *poll);
    if (poll == NULL || napi_get_uv_event_loop(handle->env, &loop) != napi_ok) return free(poll), UV_ENOMEM;
    int error = uv_poll_init(loop, poll, handle->fd);
    if (error != 0) return free(poll), error;
    poll->data = handle;
    handle->poll = poll;
  }
  return uv_poll_start(handle->poll, UV_READABLE, on_readable);
}

/* readable(): Promise<boolean>, true when there is something to receive, false when the socket is closed first. */
static napi_value method_readable(napi_env env, napi_callback_info info) {
  struct handle *handle = get_open_handle(env, info, NULL, 0);
  if (handle == NULL) return NULL;
  if (handle->waiting != NULL) {
    napi_throw_error(env, "ERR_ALREADY_WAITING", "another readable() of this socket is pending");
    return NULL;
  }
  int error = start_poll(handle);
  if (error != 0) return throw_failure(env, (struct failure){ .syscall = "poll", .error = -error }, NULL);
  napi_value name, promise;
  if (napi_create_string_utf8(env, "tweed.readable", NAPI_AUTO_LENGTH, &name) != napi_ok ||
      napi_async_init(env, NULL, name, &handle->context) != napi_ok ||
      napi_create_promise(env, &handle->waiting, &promise) != napi_ok ||
      napi_reference_ref(env, handle->self, NULL) != napi_ok) {
    uv_poll_stop(handle->poll);
    return NULL;
  }
  return promise;
}

/* close(): void. Ends a wait with false. Closing twice is closing once. */
static napi_value method_close(napi_env env, napi_callback_info info) {
  struct handle *handle = get_handle(env, info, NULL, 0);
  if (handle == NULL) return NULL;
  close_handle(handle);
  if (handle->waiting == NULL) return NULL;
  settle(handle, false);
  napi_async_destroy(env, handle->context);
  handle->context = NULL;
  return NULL;
}

static bool export_class(napi_env env, napi_value exports, const char *name, napi_callback constructor) {
  static const napi_property_descriptor methods[] = {
    { .utf8name = "send", .method = method_send },
    { .utf8name = "deliver", .method = method_deliver },
    { .utf8name = "receive", .method = method_receive },
    { .utf8name = "readable", .method = method_readable },
    { .utf8name = "close", .method = method_close },
  };
  size_t count = sizeof methods / sizeof methods[0];
  napi_value class;
  return napi_define_class(env, name, NAPI_AUTO_LENGTH, constructor, NULL, count, methods, &class) == napi_ok &&
         napi_set_named_property(env, exports, name, class) == napi_ok;
}

/* trim(): void. What malloc holds and nobody uses goes back to the system, of which glibc does its part only at the top. */
static napi_value trim(napi_env env, napi_callback_info info) {
  (void)env, (void)info;
#ifdef __GLIBC__
  malloc_trim(0);
#endif
  return NULL;
}

static bool export_trim(napi_env env, napi_value exports) {
  napi_value function;
  return napi_create_function(env, "trim", NAPI_AUTO_LENGTH, trim, NULL, &function) == napi_ok &&
         napi_set_named_property(env, exports, "trim", function) == napi_ok;
}

NAPI_MODULE_INIT() {
  bool exported = export_trim(env, exports) &&
                  export_class(env, exports, "NetlinkSocket", construct_netlink) &&
                  export_class(env, exports, "IcmpSocket", construct_icmp) &&
                  export_class(env, exports, "UnixSocket", construct_unix);
  return exported ? exports : throw_type(env, "the addon cannot define its classes");
}
