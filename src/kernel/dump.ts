/** Dumps that hold still, and what the kernel has of what a dump may ask for. */

import { setTimeout as sleep } from 'node:timers/promises'
import { type Connection, DumpInterrupted } from '../netlink/connection.ts'
import { type Message, NetlinkError, type Request } from '../netlink/message.ts'
import { getNexthops } from '../netlink/nexthop.ts'

const DUMP_ATTEMPTS = 10
const DUMP_PAUSE = 20

/** A dump that was interrupted is repeated: `visit` may see an object twice. @throws {NetlinkError} */
export async function dump(
  connection: Connection,
  request: Request,
  visit: (message: Message) => void,
): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await connection.dump(request, visit)
    } catch (error) {
      if (!(error instanceof DumpInterrupted) || attempt === DUMP_ATTEMPTS) throw error
      await sleep(DUMP_PAUSE)
    }
  }
}

/** Whether the kernel has nexthop objects (Linux 5.3). */
export async function hasNexthopObjects(connection: Connection): Promise<boolean> {
  try {
    await dump(connection, getNexthops(), () => undefined)
    return true
  } catch (error) {
    if (error instanceof NetlinkError && error.code === 'EOPNOTSUPP') return false
    throw error
  }
}
