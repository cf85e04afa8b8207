/* An array that grows, of elements of one type.
 *
 *     struct names {
 *         LS_ARRAY(struct name);
 *     };
 *     LS_ARRAY_FREED struct names names = {0};
 *     rc = ls_array_add(&names, (struct name){…});        0, or -ENOMEM: then the array is what it was
 *     for (size_t i = 0; i < names.count; i++)
 *         … names.list[i] …
 *
 * In another struct without a name of its own: `struct { LS_ARRAY(uint64_t); } parents;`. What the elements own is not
 * freed with the array. Adding may move the array: pointers into it end there. */
#ifndef LS_ARRAY_H
#define LS_ARRAY_H
#include "scope.h"

#include <errno.h>
#include <stddef.h>
#include <stdint.h>

/* `list` comes first: ls_scope_free takes it from there. */
#define LS_ARRAY(type)                                                                                                 \
    struct {                                                                                                           \
        type *list;                                                                                                    \
        size_t count, room;                                                                                            \
    }
#define LS_ARRAY_FREED __attribute__((cleanup(ls_scope_free)))

/* A larger block with the same content and twice the room, or NULL; the old one is then as it was. */
static inline void *ls_array_grown(void *list, size_t size, size_t *room) {
    size_t more = *room ? *room * 2 : 16;
    if (more > SIZE_MAX / 2 / size)
        return NULL;
    void *grown = realloc(list, more * size);
    if (grown)
        *room = more;
    return grown;
}

/* Adds a value of the element's type; 0 or -ENOMEM. The value is worked out in any case, so let it own nothing that
 * would be lost. */
#define ls_array_add(array, ...)                                                                                       \
    ({                                                                                                                 \
        __typeof__(array) array_ = (array);                                                                            \
        __typeof__(*array_->list) value_ = __VA_ARGS__;                                                                \
        int rc_ = 0;                                                                                                   \
        if (array_->count == array_->room) {                                                                           \
            void *grown_ = ls_array_grown(array_->list, sizeof *array_->list, &array_->room);                          \
            if (grown_)                                                                                                \
                array_->list = grown_;                                                                                 \
            else                                                                                                       \
                rc_ = -ENOMEM;                                                                                         \
        }                                                                                                              \
        if (!rc_)                                                                                                      \
            array_->list[array_->count++] = value_;                                                                    \
        rc_;                                                                                                           \
    })

/* qsort, which must not be given NULL, even for nothing. */
#define ls_array_sort(array, order)                                                                                    \
    ({                                                                                                                 \
        __typeof__(array) array_ = (array);                                                                            \
        if (array_->count > 1)                                                                                         \
            qsort(array_->list, array_->count, sizeof *array_->list, (order));                                         \
    })

/* Empties it and gives its memory back. */
#define ls_array_free(array)                                                                                           \
    ({                                                                                                                 \
        __typeof__(array) array_ = (array);                                                                            \
        free(array_->list);                                                                                            \
        array_->list = NULL;                                                                                           \
        array_->count = array_->room = 0;                                                                              \
    })
#endif
