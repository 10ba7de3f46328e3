/** What the kernel of a host tells, with the time at which it was heard. */

import { setTimeout as sleep } from 'node:timers/promises'
import { Subscription } from '../src/netlink/connection.ts'
import type { Message } from '../src/netlink/message.ts'
import type { Namespace } from '../src/lab/topology.ts'

const RECEIVE_BUFFER = 64 * 1024 * 1024
const PATIENCE = 30_000

export class Watch implements Disposable {
  readonly #subscription: Subscription

  private constructor(subscription: Subscription) {
    this.#subscription = subscription
  }

  /** @param groups RTNLGRP_* */
  static open(where: Namespace, groups: readonly number[]): Watch {
    return new Watch(Subscription.open({ netns: where.path, groups, receiveBuffer: RECEIVE_BUFFER }))
  }

  /** When the first message is heard of which that holds: nanoseconds of CLOCK_MONOTONIC. */
  async until(what: string, holds: (message: Message) => boolean): Promise<bigint> {
    const enough = new AbortController()
    const late = sleep(PATIENCE, 'late', { signal: enough.signal }).catch(() => 'enough')
    try {
      for (;;) {
        const at = process.hrtime.bigint()
        for (const event of this.#subscription.drain()) {
          if (event.kind === 'overrun') throw new Error('the bench itself missed notifications')
          if (event.messages.some(holds)) return at
        }
        const first = await Promise.race([this.#subscription.readable(), late])
        if (first === 'late') throw new Error(`${what} did not come within ${PATIENCE / 1000} s`)
      }
    } finally {
      enough.abort()
    }
  }

  [Symbol.dispose](): void {
    this.#subscription.close()
  }
}
