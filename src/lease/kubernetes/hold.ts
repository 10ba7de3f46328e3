/** A lease that is kept: the node is still ours, and still says what we published. */

import { formatLeaseKey, type Lease, LeaseError } from '../lease.ts'
import { pause } from '../pause.ts'
import { RegistryError } from '../registry.ts'
import { within } from '../within.ts'
import { missing } from './annotations.ts'
import type { KubernetesClient } from './client.ts'
import { Followed, follow, type Tick } from './follow.ts'
import { factsOf, type NodeEntry, podSubnets } from './node.ts'
import type { OwnNode } from './own.ts'

/** Milliseconds between two writes: what failed is tried again, and who writes against us is not answered at once. */
const RETRY = 1000

export interface HoldOptions {
  readonly client: KubernetesClient
  readonly node: OwnNode
  readonly lease: Lease
  /** Resolves when Kubernetes is to be told that the node has a network; false: it is not. */
  readonly announced: Promise<boolean>
}

/** `lost` when the node is gone, is another one of the same name, or has another podCIDR. */
export async function holdNode(options: HoldOptions, signal: AbortSignal): Promise<'lost' | 'released'> {
  const { client, node } = options
  const ends = new AbortController()
  const both = AbortSignal.any([signal, ends.signal])
  const announcing = announce(options, both)
  const ticks = follow(new Followed(client, { name: node.name, read: (object) => node.read(object) }), both)
  const holding = new Holding(options)
  let next = ticks.next()
  try {
    for (;;) {
      const result = await within(next, holding.due - performance.now())
      if (signal.aborted || result?.done === true) return 'released'
      if (result !== undefined) {
        if (holding.isLost(result.value)) return 'lost'
        next = ticks.next()
      }
      await holding.mend(both)
    }
  } catch (error) {
    if (signal.aborted) return 'released'
    throw error
  } finally {
    ends.abort()
    await Promise.all([next, announcing])
  }
}

class Holding {
  readonly #node: OwnNode
  readonly #lease: Lease
  /** As it was last seen. */
  #seen: NodeEntry | undefined
  /** No write before that, on the clock of `performance.now`. */
  #nextWrite = 0

  constructor({ node, lease }: HoldOptions) {
    this.#node = node
    this.#lease = lease
  }

  /** When something is to be done, if nothing is seen before. */
  get due(): number {
    return this.#isRight() ? Number.POSITIVE_INFINITY : this.#nextWrite
  }

  isLost(tick: Tick): boolean {
    if (tick.kind === 'unavailable') return false
    const nodes = tick.kind === 'contents' ? tick.nodes : tick.changes
    if (tick.kind === 'changes' && !nodes.has(this.#node.name)) return false
    const before = this.#seen
    this.#seen = nodes.get(this.#node.name)
    if (this.#seen === undefined || (before !== undefined && before.uid !== this.#seen.uid)) return true
    return subnetsKey(this.#seen) !== this.#lease.key
  }

  /** Writes what differs. */
  async mend(signal: AbortSignal): Promise<void> {
    if (this.#isRight() || performance.now() < this.#nextWrite) return
    this.#nextWrite = performance.now() + RETRY
    try {
      this.#seen = await this.#node.annotate(this.#missing(), signal)
    } catch (error) {
      if (!(error instanceof RegistryError)) throw error
    }
  }

  #isRight(): boolean {
    return Object.keys(this.#missing()).length === 0
  }

  #missing(): ReturnType<typeof missing> {
    return this.#seen === undefined ? {} : missing(this.#lease, factsOf(this.#seen).annotations)
  }
}

function subnetsKey(entry: NodeEntry): string {
  try {
    return formatLeaseKey(podSubnets(entry.key, factsOf(entry).podCidrs))
  } catch (error) {
    if (error instanceof LeaseError) return ''
    throw error
  }
}

/** Says that the node has a network, once it has; tries until that is said. */
async function announce({ node, announced }: HoldOptions, signal: AbortSignal): Promise<void> {
  const ended = new Promise<boolean>((resolve) => {
    signal.addEventListener('abort', () => resolve(false), { once: true })
  })
  if (!(await Promise.race([announced, ended]))) return
  while (!signal.aborted) {
    try {
      return await node.setNetworkAvailable(signal)
    } catch (error) {
      if (signal.aborted) return
      if (!(error instanceof RegistryError)) throw error
    }
    await pause(RETRY, signal)
  }
}
