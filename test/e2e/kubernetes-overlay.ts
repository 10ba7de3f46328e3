/** A lab whose hosts are nodes of a real API server, which listens on the underlay. */

import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { attachContainer } from '../../src/lab/build.ts'
import type { LabFamily, LabHost } from '../../src/lab/topology.ts'
import { Kubernetes } from '../kubernetes.ts'
import type { Agent } from './agent.ts'
import { configOf } from './families.ts'
import { Overlay } from './overlay.ts'

const PREFIX = 'flannel.alpha.coreos.com/'

export class KubernetesOverlay implements AsyncDisposable {
  readonly overlay: Overlay
  readonly kubernetes: Kubernetes
  readonly configPath: string
  readonly #kubeconfig: string
  readonly #stack: AsyncDisposableStack

  private constructor(
    overlay: Overlay,
    kubernetes: Kubernetes,
    kubeconfig: string,
    stack: AsyncDisposableStack,
  ) {
    this.overlay = overlay
    this.kubernetes = kubernetes
    this.configPath = configPathOf(overlay)
    this.#kubeconfig = kubeconfig
    this.#stack = stack
  }

  /** The machines, and a node for each of the first `nodes`; no agents. */
  static async build(hosts: number, nodes: number, family: LabFamily): Promise<KubernetesOverlay> {
    await using stack = new AsyncDisposableStack()
    const overlay = stack.use(await Overlay.build(hosts, undefined, 'sqlite', family))
    const context = { after: (end: () => void | Promise<void>) => stack.defer(async () => end()) }
    const kubernetes = await Kubernetes.start(context, { lab: overlay.lab, dualStack: family === 'dual' })
    await writeFile(configPathOf(overlay), configOf(family))
    for (const host of overlay.hosts.slice(0, nodes)) {
      await kubernetes.createNode(nodeOf(host), { podCIDRs: Object.values(host.subnets) })
    }
    const kubeconfig = await kubernetes.kubeconfig('flannel')
    return new KubernetesOverlay(overlay, kubernetes, kubeconfig, stack.move())
  }

  /** Two nodes with agents that know each other and a container on each; a host beside them. */
  static async connect(family: LabFamily): Promise<KubernetesOverlay> {
    const built = await KubernetesOverlay.build(3, 2, family)
    await using stack = new AsyncDisposableStack()
    stack.use(built)
    const agents = built.overlay.hosts.slice(0, 2).map((host) => built.start(host))
    for (const agent of agents) {
      await agent.untilReady()
      for (const { host } of agents) if (host !== agent.host) await agent.untilPeer(host.subnet, 'in sync')
      await attachContainer(agent.host)
    }
    stack.move()
    return built
  }

  /** With flannel's flags. Does not wait for it. */
  start(host: LabHost, ...flags: readonly string[]): Agent {
    return this.overlay.startInside(
      host,
      ['env', `NODE_NAME=${nodeOf(host)}`],
      '--registry=',
      '--kube-subnet-mgr',
      `--kubeconfig-file=${this.#kubeconfig}`,
      `--net-config-path=${this.configPath}`,
      ...flags,
    )
  }

  /** Those of flannel, without the prefix. */
  async annotations(host: LabHost): Promise<Readonly<Record<string, string>>> {
    const { metadata } = await this.kubernetes.node(nodeOf(host))
    const all = Object.entries(metadata.annotations ?? {}).filter(([name]) => name.startsWith(PREFIX))
    return Object.fromEntries(all.map(([name, value]) => [name.slice(PREFIX.length), value]))
  }

  async annotate(host: LabHost, annotations: Readonly<Record<string, string | null>>): Promise<void> {
    await this.kubernetes.patchNode(nodeOf(host), { metadata: { annotations: prefixed(annotations) } })
  }

  /** A node with a lease, as flanneld leaves it. */
  async createNode(host: LabHost, annotations: Readonly<Record<string, string>>): Promise<void> {
    const podCIDRs = Object.values(host.subnets)
    await this.kubernetes.createNode(nodeOf(host), { podCIDRs, annotations: prefixed(annotations) })
  }

  async deleteNode(host: LabHost): Promise<void> {
    await this.kubernetes.deleteNode(nodeOf(host))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync()
  }
}

export function nodeOf({ name }: LabHost): string {
  return name.toLowerCase()
}

function configPathOf({ lab }: Overlay): string {
  return join(lab.directory, 'net-conf.json')
}

function prefixed<T>(annotations: Readonly<Record<string, T>>): Record<string, T> {
  return Object.fromEntries(Object.entries(annotations).map(([name, value]) => [PREFIX + name, value]))
}
