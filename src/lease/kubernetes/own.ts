/** The node that this host is: its name, what stands there, and what we write there. */

import { FAMILIES, type Family, type Ip, type PerFamily } from '../../address/ip.ts'
import { LeaseError, readIp } from '../lease.ts'
import { RegistryError } from '../registry.ts'
import { OF_FAMILY, ORDERS, PUBLISHED, type Published } from './annotations.ts'
import type { KubernetesClient } from './client.ts'
import { factsOf, field, type NodeEntry, readNode, textField } from './node.ts'

/** As `nodes/status` of the API. */
interface Condition {
  readonly status: string
  readonly reason: string
}

/** What flannel says of a node that has a network. */
const NETWORK_CONDITION = 'NetworkUnavailable'
const NETWORK_IS_UP: Condition = { status: 'False', reason: 'FlannelIsUp' }

export class OwnNode {
  readonly name: string
  readonly #client: KubernetesClient
  readonly #prefix: string

  constructor(client: KubernetesClient, name: string, prefix: string) {
    this.name = name
    this.#client = client
    this.#prefix = prefix
  }

  /** What counts of it, orders included. */
  read(node: unknown): NodeEntry | undefined {
    return readNode(node, this.#prefix, [...PUBLISHED, ...ORDERS])
  }

  /** @throws {RegistryError} */
  async get(signal: AbortSignal): Promise<NodeEntry> {
    return this.#entryOf(await this.#fetch(signal))
  }

  /** Writes annotations, and removes those that are null. Returns the node as it is then. @throws {RegistryError} */
  async annotate(
    annotations: Readonly<Partial<Record<Published, string | null>>>,
    signal: AbortSignal,
  ): Promise<NodeEntry> {
    const entries = Object.entries(annotations).map(([name, value]) => [this.#prefix + name, value])
    const body = { metadata: { annotations: Object.fromEntries(entries) } }
    return this.#entryOf(await this.#patch(body, signal))
  }

  /** Says that the node has a network, unless it says so already. @throws {RegistryError} */
  async setNetworkAvailable(signal: AbortSignal): Promise<void> {
    const conditions = field(await this.#fetch(signal), 'status', 'conditions')
    const found = Array.isArray(conditions)
      ? conditions.find((each) => textField(each, 'type') === NETWORK_CONDITION)
      : undefined
    const { status, reason } = NETWORK_IS_UP
    if (textField(found, 'status') === status && textField(found, 'reason') === reason) return
    const now = new Date().toISOString().replace(/\.\d+/, '')
    const condition = {
      type: NETWORK_CONDITION,
      ...NETWORK_IS_UP,
      message: 'Flannel is running on this node',
      lastHeartbeatTime: now,
      lastTransitionTime: now,
    }
    await this.#patch({ status: { conditions: [condition] } }, signal)
  }

  /** The public IPs that an operator gave the node. @throws {RegistryError} */
  async publicIps(signal: AbortSignal): Promise<PerFamily<Ip>> {
    const { annotations } = factsOf(await this.get(signal))
    const ips: Partial<Record<Family, Ip>> = {}
    for (const family of FAMILIES) {
      const name = OF_FAMILY[family].wanted
      const text = annotations[name] ?? ''
      const ip = text === '' ? undefined : this.#readIp(name, text, family)
      if (ip !== undefined) ips[family] = ip
    }
    return ips
  }

  #readIp(name: string, text: string, family: Family): Ip | undefined {
    try {
      return readIp(text, `its annotation ${this.#prefix}${name}`, family)
    } catch (cause) {
      if (!(cause instanceof LeaseError)) throw cause
      throw new RegistryError('unavailable', `node ${JSON.stringify(this.name)}: ${cause.message}`, { cause })
    }
  }

  #fetch(signal: AbortSignal): Promise<unknown> {
    return this.#client.call('get', { method: 'GET', path: this.#path }, signal)
  }

  #patch(body: unknown, signal: AbortSignal): Promise<unknown> {
    const call = { method: 'PATCH', path: `${this.#path}/status`, body: JSON.stringify(body) } as const
    return this.#client.call('patch', call, signal)
  }

  get #path(): string {
    return `/api/v1/nodes/${encodeURIComponent(this.name)}`
  }

  #entryOf(node: unknown): NodeEntry {
    const entry = this.read(node)
    if (entry?.key === this.name) return entry
    throw new RegistryError('unavailable', `${this.#client.server}: its answer is not node ${this.name}`)
  }
}

/** `NODE_NAME`, or the node of the pod that we are. @param variables The process environment. @throws {RegistryError} */
export async function findNodeName(
  client: KubernetesClient,
  variables: Readonly<Record<string, string | undefined>>,
  signal: AbortSignal,
): Promise<string> {
  const { NODE_NAME = '', POD_NAME = '', POD_NAMESPACE = '' } = variables
  if (NODE_NAME !== '') return NODE_NAME
  if (POD_NAME === '' || POD_NAMESPACE === '') {
    throw new RegistryError('invalid', 'env variables POD_NAME and POD_NAMESPACE must be set')
  }
  const pod = `'${POD_NAMESPACE}/${POD_NAME}'`
  const [namespace, name] = [POD_NAMESPACE, POD_NAME].map(encodeURIComponent)
  const path = `/api/v1/namespaces/${namespace}/pods/${name}`
  let nodeName: string | undefined
  try {
    nodeName = textField(await client.call('get', { method: 'GET', path }, signal), 'spec', 'nodeName')
  } catch (cause) {
    if (!(cause instanceof RegistryError)) throw cause
    const message = `error retrieving pod spec for ${pod}: ${cause.message}`
    throw new RegistryError(cause.code, message, { cause })
  }
  if (nodeName) return nodeName
  throw new RegistryError('unavailable', `node name not present in pod spec ${pod}`)
}
