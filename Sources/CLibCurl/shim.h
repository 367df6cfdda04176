#pragma once

// libcurl, and a typed function for each kind of value that its variadic ones take or give: Swift
// does not import variadic functions, and a value of another width than an option expects would be
// read wrongly. Which kind an option takes stands in its manual page and in the ranges of curl.h:
// CURLOPTTYPE_LONG, _OFF_T, _STRINGPOINT and so on.

#include <curl/curl.h>

typedef size_t (*ccurl_data_function)(char *buffer, size_t size, size_t count, void *context);
typedef int (*ccurl_seek_function)(void *context, curl_off_t offset, int origin);
typedef int (*ccurl_progress_function)(
    void *context, curl_off_t down_total, curl_off_t down_now, curl_off_t up_total,
    curl_off_t up_now);
typedef int (*ccurl_socket_function)(void *context, curl_socket_t socket, curlsocktype purpose);
/// Decides about a server key that known_hosts knows, does not know, or knows otherwise.
typedef int (*ccurl_known_host_function)(
    CURL *easy, const struct curl_khkey *known, const struct curl_khkey *found,
    enum curl_khmatch match, void *context);
/// Sees the server's key before anything is decided about it.
typedef int (*ccurl_host_key_function)(
    void *context, int key_type, const char *key, size_t key_length);

// Options of a transfer.

static inline CURLcode ccurl_set_long(CURL *easy, CURLoption option, long value) {
    return curl_easy_setopt(easy, option, value);
}
static inline CURLcode ccurl_set_offset(CURL *easy, CURLoption option, curl_off_t value) {
    return curl_easy_setopt(easy, option, value);
}
/// libcurl copies the string, except for CURLOPT_POSTFIELDS.
static inline CURLcode ccurl_set_string(CURL *easy, CURLoption option, const char *value) {
    return curl_easy_setopt(easy, option, value);
}
/// A context for callbacks, an error buffer, a share: whatever is kept as it is.
static inline CURLcode ccurl_set_pointer(CURL *easy, CURLoption option, void *value) {
    return curl_easy_setopt(easy, option, value);
}
/// libcurl keeps the list itself: it must live until the transfer has ended.
static inline CURLcode ccurl_set_list(CURL *easy, CURLoption option, struct curl_slist *value) {
    return curl_easy_setopt(easy, option, value);
}
/// CURLOPT_READFUNCTION, CURLOPT_WRITEFUNCTION, CURLOPT_HEADERFUNCTION.
static inline CURLcode ccurl_set_data_function(
    CURL *easy, CURLoption option, ccurl_data_function value) {
    return curl_easy_setopt(easy, option, value);
}
static inline CURLcode ccurl_set_seek_function(CURL *easy, ccurl_seek_function value) {
    return curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, value);
}
static inline CURLcode ccurl_set_progress_function(CURL *easy, ccurl_progress_function value) {
    return curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, value);
}
static inline CURLcode ccurl_set_socket_function(CURL *easy, ccurl_socket_function value) {
    return curl_easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, value);
}
static inline CURLcode ccurl_set_known_host_function(CURL *easy, ccurl_known_host_function value) {
    return curl_easy_setopt(easy, CURLOPT_SSH_KEYFUNCTION, value);
}
static inline CURLcode ccurl_set_host_key_function(CURL *easy, ccurl_host_key_function value) {
    return curl_easy_setopt(easy, CURLOPT_SSH_HOSTKEYFUNCTION, value);
}

// What is known of a transfer.

static inline CURLcode ccurl_get_long(CURL *easy, CURLINFO info, long *value) {
    return curl_easy_getinfo(easy, info, value);
}
static inline CURLcode ccurl_get_offset(CURL *easy, CURLINFO info, curl_off_t *value) {
    return curl_easy_getinfo(easy, info, value);
}
/// The string stays libcurl's own, until the next transfer of this handle.
static inline CURLcode ccurl_get_string(CURL *easy, CURLINFO info, const char **value) {
    return curl_easy_getinfo(easy, info, value);
}
static inline CURLcode ccurl_get_pointer(CURL *easy, CURLINFO info, void **value) {
    return curl_easy_getinfo(easy, info, value);
}

// Many transfers at once.

static inline CURLMcode ccurl_multi_set_long(CURLM *multi, CURLMoption option, long value) {
    return curl_multi_setopt(multi, option, value);
}
/// What a CURLMSG_DONE says: its result lies in a union.
static inline CURLcode ccurl_message_result(const CURLMsg *message) {
    return message->data.result;
}

// What several transfers share.

static inline CURLSHcode ccurl_share_set_data(CURLSH *share, curl_lock_data data) {
    return curl_share_setopt(share, CURLSHOPT_SHARE, data);
}
