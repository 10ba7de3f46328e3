/**
 * The registry in the Kubernetes API, in flannel's form: Kubernetes gives each node its subnet (podCIDR), and the host
 * says the rest in annotations of its node. The network config is a file, as a rule of a ConfigMap. Nothing is called but
 * what flannel's ClusterRole allows: pods get; nodes get, list, watch; nodes/status patch.
 *
 * A lease has no end: it stands as long as its node, and who deletes that takes it away.
 */

import { readFile } from 'node:fs/promises'
import type { Family, Ip, PerFamily } from '../../address/ip.ts'
import { type Prefix, prefixCovers, prefixFamily } from '../../address/prefix.ts'
import { Snapshots } from '../entries.ts'
import { formatLeaseKey, type Lease, LeaseError } from '../lease.ts'
import {
  type LeaseRegistry,
  type LeaseRequest,
  type RegistryAdmin,
  RegistryError,
  type RegistryEvent,
} from '../registry.ts'
import { within } from '../within.ts'
import { annotationPrefix, DEFAULT_PREFIX, missing, PUBLISHED } from './annotations.ts'
import { type ClientOptions, KubernetesClient } from './client.ts'
import { type ClusterChoice, findCluster } from './find-cluster.ts'
import { Followed, follow, type Tick } from './follow.ts'
import { holdNode } from './hold.ts'
import { decodeNode, factsOf, isManaged, type NodeEntry, podSubnets, readNode } from './node.ts'
import { findNodeName, OwnNode } from './own.ts'

export interface KubernetesOptions extends ClusterChoice, Omit<ClientOptions, 'cluster'> {
  readonly annotationPrefix?: string
  /** Path of the network config. */
  readonly netConfig?: string
  /** Whether the condition NetworkUnavailable of our node is set to False. */
  readonly setNetworkUnavailable?: boolean
  /** Milliseconds between two looks at the network config. */
  readonly configInterval?: number
}

const DEFAULT_NET_CONFIG = '/etc/kube-flannel/net-conf.json'

/** The kubelet takes a minute to bring a ConfigMap that was changed. */
const CONFIG_INTERVAL = 5000

const NO_CHANGES: ReadonlyMap<string, NodeEntry | undefined> = new Map()

export class KubernetesRegistry implements LeaseRegistry, RegistryAdmin {
  readonly name: string
  readonly givesSubnets = true
  readonly #client: KubernetesClient
  readonly #options: KubernetesOptions
  readonly #prefix: string
  readonly #closed = new AbortController()
  #node: OwnNode | undefined
  /** What the last watch knew: the next need not list it again. */
  #followed: Followed | undefined

  private constructor(client: KubernetesClient, options: KubernetesOptions) {
    this.name = `kubernetes:${client.server}`
    this.#client = client
    this.#options = options
    this.#prefix = annotationPrefix(options.annotationPrefix ?? DEFAULT_PREFIX)
  }

  /** @throws {RegistryError} `invalid` */
  static async open(options: KubernetesOptions): Promise<KubernetesRegistry> {
    const cluster = await findCluster(options)
    return new KubernetesRegistry(new KubernetesClient({ ...options, cluster }), options)
  }

  async readConfig(): Promise<string> {
    try {
      return await readFile(this.#netConfig, 'utf8')
    } catch (cause) {
      const message = `failed to read net conf: ${(cause as Error).message}`
      throw new RegistryError('unavailable', message, { cause })
    }
  }

  async publicIps(signal: AbortSignal): Promise<PerFamily<Ip>> {
    const until = this.#until(signal)
    return (await this.#ownNode(until)).publicIps(until)
  }

  /** `unavailable` also while the node has no podCIDR yet: it is waited for like all else. */
  async acquire({ config, attributes }: LeaseRequest, signal: AbortSignal): Promise<Lease> {
    const until = this.#until(signal)
    const node = await this.#ownNode(until)
    const entry = await node.get(until)
    const subnets = subnetsOf(entry)
    const changes = missing(attributes, factsOf(entry).annotations)
    const lease = {
      ...attributes,
      key: formatLeaseKey(subnets),
      subnets: cutToNetwork(entry, subnets, config),
      expires: undefined,
      created: entry.created,
      node: entry.key,
    }
    if (Object.keys(changes).length > 0) await node.annotate(changes, until)
    return lease
  }

  async *watch(signal: AbortSignal): AsyncGenerator<RegistryEvent> {
    const ends = new AbortController()
    const followed = this.#followed ?? new Followed(this.#client, { read: (node) => this.#readPeer(node) })
    this.#followed = undefined
    const ticks = follow(followed, AbortSignal.any([this.#until(signal), ends.signal]))
    try {
      yield* this.#events(ticks)
    } finally {
      ends.abort()
      await ticks.return()
      this.#followed = followed
    }
  }

  /** The nodes, and the config beside them, as snapshots. */
  async *#events(ticks: AsyncGenerator<Tick, void>): AsyncGenerator<RegistryEvent> {
    const { configInterval = CONFIG_INTERVAL } = this.#options
    const snapshots = new Snapshots<NodeEntry>(new Map(), decodeNode)
    /** The reasons of this outage that were given. */
    const reasons = new Set<string>()
    let incarnation: string | undefined
    let config = await this.#findConfig()
    let due = performance.now() + configInterval
    for (let next = ticks.next(); ; ) {
      const result = await within(next, due - performance.now())
      if (result?.done === true) return
      const tick = result?.value
      if (tick !== undefined) next = ticks.next()
      if (performance.now() >= due) {
        config = await this.#findConfig()
        due = performance.now() + configInterval
      }
      if (tick?.kind === 'unavailable') {
        if (!reasons.has(tick.reason)) yield tick
        reasons.add(tick.reason)
        continue
      }
      if (tick?.kind === 'contents') incarnation = tick.incarnation
      // Before the first list, and while there is no server, the config alone makes no snapshot.
      if (incarnation === undefined || (tick === undefined && reasons.size > 0)) continue
      const contents = { config, incarnation }
      const { snapshot, news } =
        tick?.kind === 'contents'
          ? snapshots.take({ ...contents, entries: [...tick.nodes.values()] }, 0)
          : snapshots.change(tick?.changes ?? NO_CHANGES, contents)
      const recovered = reasons.size > 0
      reasons.clear()
      if (recovered || news) yield snapshot
    }
  }

  /** A lease is lost with its node. A podCIDR never changes in the life of one. */
  async hold(
    lease: Lease,
    signal: AbortSignal,
    programmed: Promise<boolean> = Promise.resolve(true),
  ): Promise<'lost' | 'released'> {
    const until = this.#until(signal)
    const { setNetworkUnavailable = true } = this.#options
    const announced = setNetworkUnavailable ? programmed : Promise.resolve(false)
    const node = new OwnNode(this.#client, lease.node ?? '', this.#prefix)
    return holdNode({ client: this.#client, node, lease, announced }, until)
  }

  putConfig(): Promise<never> {
    return refuse(`the network config is the file ${this.#netConfig}: change it, or its ConfigMap`)
  }

  reserve(): Promise<never> {
    return refuse('Kubernetes gives each node its subnet: there is none to reserve')
  }

  release(): Promise<never> {
    return refuse('a lease stands as long as its node: `kubectl delete node` removes both')
  }

  async close(): Promise<void> {
    this.#closed.abort()
    this.#client.close()
  }

  get #netConfig(): string {
    return this.#options.netConfig ?? DEFAULT_NET_CONFIG
  }

  /** Undefined when it cannot be read: an agent goes on with the one that it has. */
  async #findConfig(): Promise<string | undefined> {
    try {
      return await this.readConfig()
    } catch (error) {
      if (error instanceof RegistryError) return undefined
      throw error
    }
  }

  #readPeer(node: unknown): NodeEntry | undefined {
    return isManaged(node, this.#prefix) ? readNode(node, this.#prefix, PUBLISHED) : undefined
  }

  async #ownNode(signal: AbortSignal): Promise<OwnNode> {
    if (this.#node === undefined) {
      const name = await findNodeName(this.#client, this.#options.variables, signal)
      this.#node = new OwnNode(this.#client, name, this.#prefix)
    }
    return this.#node
  }

  #until(signal: AbortSignal): AbortSignal {
    return AbortSignal.any([signal, this.#closed.signal])
  }
}

async function refuse(problem: string): Promise<never> {
  throw new RegistryError('invalid', problem)
}

/** All that Kubernetes gave the node. @throws {RegistryError} */
function subnetsOf(entry: NodeEntry): PerFamily<Prefix> {
  const { podCidrs } = factsOf(entry)
  try {
    return podSubnets(entry.key, podCidrs)
  } catch (cause) {
    if (!(cause instanceof LeaseError)) throw cause
    throw new RegistryError(podCidrs.length === 0 ? 'unavailable' : 'invalid', cause.message, { cause })
  }
}

/** The subnets in the families of the network, each in the network. @throws {RegistryError} `invalid` */
function cutToNetwork(
  { key }: NodeEntry,
  subnets: PerFamily<Prefix>,
  { ranges }: LeaseRequest['config'],
): PerFamily<Prefix> {
  const cut: Partial<Record<Family, Prefix>> = {}
  const node = JSON.stringify(key)
  for (const { network } of Object.values(ranges)) {
    const family = prefixFamily(network)
    const subnet = subnets[family]
    const word = family === 'inet' ? 'PodCIDR' : 'IPv6 PodCIDR'
    if (subnet === undefined) throw new RegistryError('invalid', `node ${node} has no ${word}`)
    if (!prefixCovers(network, subnet)) {
      const problem = `doesn't contain ${JSON.stringify(subnet)} ${word} of the ${node} node`
      throw new RegistryError('invalid', `subnet "${network}" specified in the flannel net config ${problem}`)
    }
    cut[family] = subnet
  }
  return cut
}
