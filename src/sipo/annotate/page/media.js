// Results side by side: loaded before they are asked for, zoomed together, videos played together.

export async function load(names, kind) {
  // Each name is good for one request; the bytes stay in the page as blobs.
  const blobs = await Promise.all(names.map(async (name) => {
    const answer = await fetch(`media/${name}`);
    if (!answer.ok) throw new Error(`media ${answer.status}`);
    return answer.blob();
  }));
  return Promise.all(blobs.map((blob) => element(URL.createObjectURL(blob), kind === "video" ? "video" : blob.type.startsWith("video") ? "video" : "img")));
}

function element(url, tag) {
  return new Promise((resolve, reject) => {
    const it = document.createElement(tag);
    it.draggable = false;
    it.onerror = () => reject(new Error("media cannot be shown"));
    if (tag === "img") {
      it.src = url;
      it.decode().then(() => resolve(it), reject);
    } else {
      Object.assign(it, { muted: true, playsInline: true, preload: "auto", oncanplaythrough: () => resolve(it), src: url });
      it.load();
    }
  });
}

export function release(elements) {
  for (const it of elements) { it.pause?.(); URL.revokeObjectURL(it.src); it.removeAttribute("src"); }
}

export class Together {
  // Plays videos in step and loops them together: nobody starts again before all have ended.
  constructor(videos) {
    this.videos = videos;
    this.playing = false;
    for (const video of videos) video.onended = () => this.videos.every((v) => v.ended) && this.restart();
    this.timer = setInterval(() => this.align(), 250);
  }
  restart() { for (const video of this.videos) video.currentTime = 0; if (this.playing) this.play(); }
  play() {
    this.playing = true;
    if (this.videos.every((v) => v.ended)) for (const video of this.videos) video.currentTime = 0;
    return Promise.all(this.videos.map((video) => video.play().catch(() => {})));
  }
  pause() {
    this.playing = false;
    for (const video of this.videos) video.pause();
    for (const video of this.videos) video.currentTime = this.videos[0].currentTime;
  }
  toggle() { this.playing ? this.pause() : this.play(); }
  align() {
    const [first, ...others] = this.videos;
    if (!this.playing || !first || first.ended) return;
    for (const video of others) if (Math.abs(video.currentTime - first.currentTime) > 0.12) video.currentTime = first.currentTime;
  }
  end() { clearInterval(this.timer); this.playing = false; }
}

export class Zoom {
  // One magnification and one place for all results: wheel, pinch, drag, double click, or the key.
  constructor(frames) {
    this.frames = frames;
    this.fingers = new Map();
    this.reset();
    for (const frame of frames) {
      frame.addEventListener("wheel", (e) => { e.preventDefault(); this.at(frame, e, this.scale * Math.exp(-e.deltaY / 300)); }, { passive: false });
      frame.addEventListener("dblclick", (e) => this.at(frame, e, this.scale > 1 ? 1 : 3));
      frame.addEventListener("pointerdown", (e) => { frame.setPointerCapture(e.pointerId); this.fingers.set(e.pointerId, [e.clientX, e.clientY]); });
      frame.addEventListener("pointermove", (e) => this.move(frame, e));
      for (const end of ["pointerup", "pointercancel"]) frame.addEventListener(end, (e) => this.fingers.delete(e.pointerId));
    }
  }
  reset() { [this.scale, this.x, this.y] = [1, 0, 0]; this.draw(); }
  toggle() { this.scale > 1 ? this.reset() : this.set(3, 0, 0); }
  at(frame, event, scale) {
    // The point under the pointer stays where it is.
    const box = frame.getBoundingClientRect();
    const [px, py] = [event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2];
    const next = Math.min(Math.max(scale, 1), 12), ratio = next / this.scale;
    this.set(next, px - (px - this.x) * ratio, py - (py - this.y) * ratio);
  }
  move(frame, event) {
    if (!this.fingers.has(event.pointerId)) return;
    const before = [...this.fingers.values()].map((p) => [...p]);
    const [oldX, oldY] = this.fingers.get(event.pointerId);
    this.fingers.set(event.pointerId, [event.clientX, event.clientY]);
    if (before.length === 2) {
      const now = [...this.fingers.values()], apart = (p) => Math.hypot(p[0][0] - p[1][0], p[0][1] - p[1][1]);
      const middle = { clientX: (now[0][0] + now[1][0]) / 2, clientY: (now[0][1] + now[1][1]) / 2 };
      this.at(frame, middle, this.scale * apart(now) / Math.max(apart(before), 1));
    } else if (this.scale > 1) this.set(this.scale, this.x + event.clientX - oldX, this.y + event.clientY - oldY);
  }
  set(scale, x, y) {
    const box = this.frames[0].getBoundingClientRect(), limit = (scale - 1) / 2;
    [this.scale, this.x, this.y] = [scale, clamp(x, limit * box.width), clamp(y, limit * box.height)];
    this.draw();
  }
  draw() {
    for (const frame of this.frames) {
      frame.classList.toggle("zoomed", this.scale > 1);
      if (frame.firstElementChild) frame.firstElementChild.style.transform = this.scale > 1 ? `translate(${this.x}px, ${this.y}px) scale(${this.scale})` : "";
    }
  }
}

const clamp = (value, limit) => Math.min(Math.max(value, -limit), limit);
