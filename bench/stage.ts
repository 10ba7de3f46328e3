/**
 * Where benches take place: a lab (`src/lab`) of hosts in network namespaces with an etcd in their underlay, and the
 * means to write leases and to look at the kernels. All of it is gone afterwards, however a bench ends.
 */

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { buildHost, buildUnderlay } from '../src/lab/build.ts'
import { ip, run } from '../src/lab/command.ts'
import { labDown, onCleanGround } from '../src/lab/lab.ts'
import { ETCD_PREFIX, ETCD_URL, startEtcd } from '../src/lab/registry.ts'
import { type Lab, type LabHost, planLab } from '../src/lab/topology.ts'
import type { Options } from './bench.ts'
import type { Mode } from './network.ts'
import type { Done, Order } from './writer.ts'

/** An order to etcd, done. Nanoseconds of CLOCK_MONOTONIC. */
export interface Written {
  readonly began: bigint
  readonly ended: bigint
}

export class Stage {
  readonly lab: Lab
  readonly #writer: ChildProcess
  readonly #waiting = new Map<number, (done: Done) => void>()
  #orders = 0

  private constructor(lab: Lab, writer: ChildProcess) {
    this.lab = lab
    this.#writer = writer
    writer.on('message', (done: Done) => {
      this.#waiting.get(done.id)?.(done)
      this.#waiting.delete(done.id)
    })
  }

  /** Builds a stage, does the work on it until the signal, and takes it away with all that runs there. */
  static async with<T>(
    hosts: number,
    { tell, signal }: Pick<Options, 'tell' | 'signal'>,
    work: (stage: Stage) => Promise<T>,
  ): Promise<T> {
    signal.throwIfAborted()
    const aborted = Promise.withResolvers<never>()
    const abort = (): void => aborted.reject(signal.reason)
    signal.addEventListener('abort', abort)
    const lab = planLab(`bench${process.pid}`, hosts, 'etcd')
    try {
      await onCleanGround(lab, tell, async () => {
        await buildUnderlay(lab)
        await startEtcd(lab)
        for (const { subnetFile } of lab.hosts) await mkdir(dirname(subnetFile), { recursive: true })
      })
      const program = fileURLToPath(new URL('writer.ts', import.meta.url))
      const words = [`--net=${lab.underlay.path}`, process.execPath, program, ETCD_URL, ETCD_PREFIX]
      const writer = spawn('nsenter', words, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
      await once(writer, 'spawn')
      try {
        return await Promise.race([work(new Stage(lab, writer)), aborted.promise])
      } finally {
        const exit = once(writer, 'exit')
        writer.disconnect()
        await exit
      }
    } finally {
      signal.removeEventListener('abort', abort)
      await labDown(lab.name)
    }
  }

  host(index: number): LabHost {
    const host = this.lab.hosts[index]
    if (host === undefined) throw new Error(`the stage has no host ${index}`)
    return host
  }

  /** A network of that many peers, and nothing else. */
  async network(mode: Mode, peers: number): Promise<void> {
    await this.order({ kind: 'clear' })
    await this.order({ kind: 'config', mode })
    if (peers > 0) await this.order({ kind: 'put', from: 1, to: peers })
  }

  async order(order: Order): Promise<Written> {
    const id = this.#orders++
    const done = new Promise<Done>((resolve) => this.#waiting.set(id, resolve))
    this.#writer.send({ id, order })
    const { began, ended, error } = await done
    if (error !== undefined) throw new Error(error)
    return { began: BigInt(began), ended: BigInt(ended) }
  }

  /** The host as if it had just been made: another namespace, nothing remembered. */
  async renew(host: LabHost): Promise<void> {
    // A namespace that is deleted lets go of its links some time later; the bridge is to have its port free now.
    await ip(host.namespace, 'link delete eth0')
    await run('ip', ['netns', 'delete', host.namespace])
    await run('ip', ['netns', 'add', host.namespace])
    await buildHost(this.lab, host)
    await rm(host.subnetFile, { force: true })
  }
}
