/** sd_notify(3): tells systemd what a unit of `Type=notify` is doing. Without systemd it does nothing. */

import { openUnix } from '../native.ts'

/**
 * `READY=1`, `STOPPING=1`, `STATUS=…`; several are separated by line breaks. That nobody listens is no error: the
 * agent's work does not depend on who started it.
 * @param path `$NOTIFY_SOCKET`
 */
export function notifySystemd(path: string | undefined, state: string): void {
  if (path === undefined || path === '') return
  try {
    const socket = openUnix(path)
    try {
      socket.send(Buffer.from(state))
    } finally {
      socket.close()
    }
  } catch {
    // Nobody listens there.
  }
}
