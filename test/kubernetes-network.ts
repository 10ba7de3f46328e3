/** A network of its own in a Kubernetes that tests share: nodes with annotations under a prefix of its own. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { parseIp } from '../src/address/ip.ts'
import { parseNetworkConfig } from '../src/config/network-config.ts'
import { type KubernetesOptions, KubernetesRegistry } from '../src/lease/kubernetes/registry.ts'
import type { Lease, LeaseAttributes } from '../src/lease/lease.ts'
import type { RegistryCall } from '../src/lease/registry.ts'
import type { Kubernetes, NodeObject, NodeOptions } from './kubernetes.ts'

export const CONFIG = '{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}'

/** How the hosts of a network connect, for one of the tests. */
export class KubernetesNetwork {
  readonly kubernetes: Kubernetes
  readonly prefix: string
  readonly configPath: string
  /** What the registries asked for, as metrics count it. */
  readonly calls: string[] = []
  readonly #t: TestContext
  readonly #kubeconfig: string
  /** What nodes are called, before `-a`. */
  readonly #name: string

  private constructor(kubernetes: Kubernetes, t: TestContext, kubeconfig: string) {
    const folder = mkdtempSync(join(tmpdir(), 'twt-'))
    t.after(() => rmSync(folder, { recursive: true }))
    this.kubernetes = kubernetes
    this.configPath = join(folder, 'net-conf.json')
    this.#t = t
    this.#kubeconfig = kubeconfig
    this.#name = t.name
      .toLowerCase()
      .replaceAll(/[^a-z0-9]+/g, '-')
      .slice(0, 40)
      .replace(/-$/, '')
    this.prefix = `${this.#name}.twt.test/`
    this.writeConfig(CONFIG)
  }

  static async open(kubernetes: Kubernetes, t: TestContext): Promise<KubernetesNetwork> {
    return new KubernetesNetwork(kubernetes, t, await kubernetes.kubeconfig('flannel'))
  }

  writeConfig(text: string): void {
    writeFileSync(this.configPath, text)
  }

  nameOf(node: string): string {
    return `${this.#name}-${node}`
  }

  /** The registry as the host of that node sees it. */
  async connect(node: string, options: Partial<KubernetesOptions> = {}): Promise<KubernetesRegistry> {
    const registry = await KubernetesRegistry.open({
      kubeconfig: this.#kubeconfig,
      variables: { NODE_NAME: this.nameOf(node) },
      annotationPrefix: this.prefix,
      netConfig: this.configPath,
      configInterval: 100,
      observe: ({ operation }: RegistryCall) => this.calls.push(operation),
      ...options,
    })
    this.#t.after(() => registry.close())
    return registry
  }

  /** A node that goes with the test. */
  async create(node: string, options: NodeOptions = {}): Promise<NodeObject> {
    const name = this.nameOf(node)
    const created = await this.kubernetes.createNode(name, {
      ...options,
      annotations: this.#prefixed(options.annotations ?? {}),
    })
    this.#t.after(async () => {
      await this.kubernetes.request('DELETE', `/api/v1/nodes/${name}`)
    })
    return created
  }

  node(node: string): Promise<NodeObject> {
    return this.kubernetes.node(this.nameOf(node))
  }

  delete(node: string): Promise<void> {
    return this.kubernetes.deleteNode(this.nameOf(node))
  }

  /** As an operator; null removes. */
  async annotate(node: string, annotations: Readonly<Record<string, string | null>>): Promise<NodeObject> {
    return this.kubernetes.patchNode(this.nameOf(node), {
      metadata: { annotations: this.#prefixed(annotations) },
    })
  }

  /** What stands on the node, without the prefix; what others wrote there is left out. */
  async annotations(node: string): Promise<Readonly<Record<string, string>>> {
    const { metadata } = await this.node(node)
    const own = Object.entries(metadata.annotations ?? {}).filter(([name]) => name.startsWith(this.prefix))
    return Object.fromEntries(own.map(([name, value]) => [name.slice(this.prefix.length), value]))
  }

  #prefixed<T>(annotations: Readonly<Record<string, T>>): Record<string, T> {
    return Object.fromEntries(Object.entries(annotations).map(([name, value]) => [this.prefix + name, value]))
  }
}

/** What a vxlan host with that last byte says of itself. */
export function attributesOf(last: number): LeaseAttributes {
  const mac = `02:00:00:00:00:${last.toString(16).padStart(2, '0')}`
  return {
    publicIps: { inet: parseIp(`192.168.1.${last}`) },
    backendType: 'vxlan',
    backendData: { inet: { VNI: 1, VtepMAC: mac } },
  }
}

/** The annotations of a vxlan host, as flanneld writes them. */
export function annotationsOf(last: number): Readonly<Record<string, string>> {
  const { publicIps, backendData } = attributesOf(last)
  return {
    'kube-subnet-manager': 'true',
    'backend-type': 'vxlan',
    'backend-data': JSON.stringify(backendData.inet),
    'public-ip': `${publicIps.inet}`,
  }
}

export async function acquire(
  registry: KubernetesRegistry,
  attributes: LeaseAttributes,
  signal: AbortSignal,
  config = CONFIG,
): Promise<Lease> {
  return registry.acquire({ config: parseNetworkConfig(config, true), attributes, previous: {} }, signal)
}
