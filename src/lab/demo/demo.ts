/** The demo: the story of the overlay in four acts, told and proved by a lab of two hosts. */

import { buildUnderlay } from '../build.ts'
import { onCleanGround } from '../lab.ts'
import { labNamespaces, removeLab } from '../remove.ts'
import type { Program } from '../registry.ts'
import { LabError, type LabRegistry, planLab } from '../topology.ts'
import { linuxAlone } from './act1.ts'
import { overlayWithMisses } from './act2.ts'
import { overlayWithoutMisses } from './act3.ts'
import { itHolds } from './act4.ts'
import { Narrator } from './narrator.ts'
import { logLines, type Stage } from './stage.ts'

export interface DemoOptions {
  /** Of the lab that it is played in. */
  readonly name: string
  readonly registry: LabRegistry
  readonly program: Program
  readonly signal: AbortSignal
  readonly write: (text: string) => void
}

/** In which act, and why, the demo ended before its end. Everything is taken away by then. */
export class DemoFailed extends Error {
  override readonly name = 'DemoFailed'
}

/** Plays all acts. Gives the number of claims that were checked. @throws {DemoFailed} */
export async function playDemo({ name, registry, program, signal, write }: DemoOptions): Promise<number> {
  const lab = planLab(name, 2, registry)
  const [hostA, hostB] = lab.hosts
  if (hostA === undefined || hostB === undefined) throw new LabError('the demo needs two hosts')
  const narrator = new Narrator(write, signal)
  const stage: Stage = { lab, hostA, hostB, narrator, program, signal }
  await onCleanGround(
    lab,
    (line) => narrator.say(line),
    async () => {
      try {
        await play(stage)
      } catch (error) {
        if (signal.aborted) throw new DemoFailed((signal.reason as Error).message, { cause: error })
        narrator.lines(await logLines(lab))
        throw new DemoFailed(`${narrator.currentAct}: ${(error as Error).message}`, { cause: error })
      }
    },
  )
  return narrator.held
}

async function play(stage: Stage): Promise<void> {
  const { lab, narrator } = stage
  narrator.say(
    'Two hosts stand on one network, 192.168.1.0/24. Each is a network namespace of this machine,\n' +
      'and the wire between them is a third one: nothing of the machine itself is touched.',
  )
  await buildUnderlay(lab)
  for (const host of lab.hosts) await narrator.table(host, 'ip -br address show dev eth0')
  await linuxAlone(stage)
  const first = await overlayWithMisses(stage)
  const [agentA] = await overlayWithoutMisses(stage, first)
  if (agentA === undefined) throw new LabError('there is no agent to kill')
  await itHolds(stage, agentA)
  narrator.act('The end')
  await removeLab(lab.name)
  narrator.check(
    'the lab is gone: no namespace, no process, no file',
    (await labNamespaces(lab.name)).length === 0,
  )
}
